"""Tasks that are added while a server is at work, and how it is told to end."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from protos import recast_v1_pb2 as pb
from recast_core import RecastError
from recast_core.task_spec import parse_task
from server.app import _learn
from server.record import control
from server.record.registry import Registry

if TYPE_CHECKING:
    from conftest import Federation

Make = Callable[..., "Federation"]


def adding(made: Federation, *specs: str) -> Callable[[pb.ToClient, pb.ToServer], object]:
    """A node's script that has tasks added by another process while it trains its first round."""

    def script(question: pb.ToClient, right: pb.ToServer) -> object:
        if question.WhichOneof("body") == "train" and len(made.trained(1)) == 1:
            with Registry(made.registry.path) as other:
                for spec in specs:
                    control.add_task(other, made.run, parse_task(spec))
        return right

    return script


def test_a_task_that_is_added_in_the_middle_is_learned_by_those_that_have_it(
    federation: Make,
) -> None:
    made = federation(nodes=3, rounds=2)
    made.grid.nodes[1].script = adding(made, "new=digits+inverted")
    made.grid.nodes[3].tasks = (1,)
    made.go()
    made.strategy.evaluate_again(made.grid)
    assert made.trained(2) == [(1, 1), (1, 2), (2, 1), (2, 2)]
    assert made.trained(3) == [(1, 1), (1, 2)]
    hellos = [q.hello for q in made.grid.nodes[2].asked if q.WhichOneof("body") == "hello"]
    assert [[task.name for task in hello.tasks] for hello in hellos] == [["t1"], ["t1", "new"]]
    assert hellos[1].tasks[1].source == "new=digits+inverted"
    assert all(node.kinds().count("bank") == 1 for node in made.grid.nodes.values())
    new = made.registry.task(made.run, "new")
    assert (new.number, new.classes, new.clients, new.examples) == (2, 4, 2, 80)
    found = [(a.task, a.after_task) for a in made.registry.accuracies(made.run)]
    assert found == [(1, 1), (2, 2), (1, 2)]


def test_a_late_joiner_gets_the_bank_and_every_task(federation: Make) -> None:
    made = federation(nodes=2, rounds=2)
    late = made.grid.nodes.pop(2)
    script = adding(made, "new=digits")

    def joins(question: pb.ToClient, right: pb.ToServer) -> object:
        if question.train.task == 2:
            made.grid.nodes[2] = late
        return script(question, right)

    made.grid.nodes[1].script = joins
    made.go()
    assert late.kinds()[:2] == ["hello", "bank"]
    assert [task.name for task in late.asked[0].hello.tasks] == ["t1", "new"]
    assert made.trained(2) == [(2, 2)]


def test_an_added_task_that_nobody_has_waits_and_holds_nobody_up(federation: Make) -> None:
    made = federation(nodes=2, rounds=2)
    made.grid.nodes[1].script = adding(made, "odd=digits", "new=digits")
    for node in made.grid.nodes.values():
        node.tasks = (1, 3)
    made.go()
    assert made.trained(1) == [(1, 1), (1, 2), (3, 1), (3, 2)]
    assert made.strategy.unlearned() == ["odd"]
    assert not made.strategy.ready(made.grid)


def test_an_added_task_that_fails_does_not_end_the_run(federation: Make) -> None:
    made = federation(nodes=1, rounds=2)
    script = adding(made, "bad=digits", "new=digits")

    def spoils(question: pb.ToClient, right: pb.ToServer) -> object:
        return b"\xff" if question.train.task == 2 else script(question, right)

    made.grid.nodes[1].script = spoils
    made.go()
    assert made.trained(1) == [(1, 1), (1, 2), (2, 1), (3, 1), (3, 2)]
    assert made.strategy.unlearned() == ["bad"]


def test_a_server_that_keeps_running_learns_what_is_added_until_it_is_closed(
    federation: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("server.app.LOOK_SECONDS", 0.01)
    made = federation(nodes=2, rounds=1)
    server = threading.Thread(
        target=_learn, args=(made.strategy, made.grid, made.registry, made.run, True)
    )
    server.start()
    with Registry(made.registry.path) as other:
        for spec in ("b=digits", "c=digits"):
            number = control.add_task(other, made.run, parse_task(spec))
            for _ in range(24_000):
                if other.last_rounds(made.run).get(number):
                    break
                server.join(0.01)
            assert other.last_rounds(made.run)[number] == 1
        assert server.is_alive()
        control.close(other, made.run)
        with pytest.raises(RecastError, match=r"closed|finished"):
            control.add_task(other, made.run, parse_task("d=digits"))
    server.join(240)
    assert not server.is_alive()
    assert made.registry.runs()[0].status == "finished"


def test_a_run_does_not_finish_over_a_task_that_was_just_added(federation: Make) -> None:
    made = federation(nodes=1, rounds=1)
    assert not made.registry.finish_with(made.run, 0)
    assert made.registry.runs()[0].status == "running"
    assert made.registry.finish_with(made.run, 1)
    with pytest.raises(RecastError, match="is finished: start a server with --keep-running"):
        control.add_task(made.registry, made.run, parse_task("digits"))
    with pytest.raises(RecastError, match="nothing to close"):
        control.close(made.registry, made.run)


def test_two_tasks_of_one_name_are_refused(federation: Make) -> None:
    made = federation(nodes=1)
    with pytest.raises(RecastError, match="has a task 'T1' already"):
        control.add_task(made.registry, made.run, parse_task("T1=digits"))
    with pytest.raises(RecastError, match=r"another name, NAME=digits@0-4\+fog:3$"):
        control.add_task(made.registry, made.run, parse_task("T1=digits@0-4+fog:3"))
    with pytest.raises(RecastError, match="no run 9"):
        control.add_task(made.registry, 9, parse_task("digits"))
