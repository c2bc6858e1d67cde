"""A node's failure is the node's: others are drawn, by numbers that no client can foresee."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from flwr.app import Error

from protos import recast_v1_pb2 as pb
from recast_core import RecastError
from server.exchange.pace import LEAST_ALONE_OTHERWISE
from server.record.secret import sampling_secret
from server.rounds.drawing import Drawing
from server.rounds.federation import sample

if TYPE_CHECKING:
    from conftest import Federation

Make = Callable[..., "Federation"]


def short(question: pb.ToClient, right: pb.ToServer) -> object:
    """An update that can never be used."""
    if right.WhichOneof("body") == "update":
        right.update.coefficients = b"1"
    return right


def says_no(question: pb.ToClient, right: pb.ToServer) -> object:
    if right.WhichOneof("body") != "update":
        return right
    refusal = pb.Refusal(reason=pb.Refusal.REASON_FAILED, task=right.update.task, detail="no")
    return pb.ToServer(refusal=refusal)


def crashes(question: pb.ToClient, right: pb.ToServer) -> object:
    return Error(1, "no") if right.WhichOneof("body") == "update" else right


@pytest.mark.parametrize("script", [short, says_no, crashes])
def test_one_that_always_fails_costs_its_own_turns_and_nothing_else(
    federation: Make, script: Callable[..., object]
) -> None:
    made = federation(nodes=3, rounds=12, clients_per_round=1, scripts={2: script})
    made.go(100)
    assert [entry.clients for entry in made.registry.rounds(made.run, 1)] == [1] * 12
    assert made.trained(2)
    tried = sum(len(made.trained(node)) for node in (1, 2, 3))
    assert tried == 12 + len(made.trained(2))


def test_where_all_fail_the_run_ends_and_says_why(federation: Make) -> None:
    made = federation(nodes=3, clients_per_round=1, scripts=dict.fromkeys((1, 2, 3), says_no))
    with pytest.raises(RecastError, match=r"no update was accepted in round 1 .*failed: no"):
        made.go(100)
    assert all(made.trained(node) for node in (1, 2, 3))


def test_a_refusal_does_not_speak_for_those_who_have_said_nothing(federation: Make) -> None:
    made = federation(nodes=2, rounds=2, deadline=50.0, scripts={2: says_no})
    late = iter((1e9, 0.0, 0.0))
    made.grid.nodes[1].delay = lambda question: (
        next(late, 0.0) if question.WhichOneof("body") == "train" else 0.0
    )
    made.go(20)
    assert [entry.clients for entry in made.registry.rounds(made.run, 1)] == [1, 1]


def test_who_is_drawn_alone_and_keeps_silent_is_measured_by_the_rounds_before(
    federation: Make,
) -> None:
    made = federation(nodes=5, rounds=12, deadline=3600, max_lag=10, clients_per_round=1)
    made.grid.nodes[3].delay = lambda question: (
        1e9 if question.WhichOneof("body") == "train" else 0.0
    )
    made.go(100)
    assert [entry.clients for entry in made.registry.rounds(made.run, 1)] == [1] * 12
    assert made.clock.now < LEAST_ALONE_OTHERWISE + 10
    assert len(made.trained(3)) > 1, "it is asked again, beside another"


def test_overdue_nodes_are_asked_beside_those_that_take_their_place() -> None:
    able = [(node, node) for node in range(1, 11)]
    drawing = Drawing(3, 0)
    for round_ in range(1, 30):
        plain = sample(able, 3, 0, 1, round_)
        drawn = drawing.draw(able, {1, 2}, 1, round_)
        assert len([node for node in drawn if node not in (1, 2)]) == 3
        assert set(plain) <= set(drawn)
    assert drawing.draw(able, range(1, 11), 1, 1) == sample(able, 3, 0, 1, 1)
    assert drawing.failed(1, range(1, 10), able)
    assert drawing.draw(able, set(), 1, 1) == [10]
    assert not drawing.failed(1, [10], able)
    assert drawing.draw(able, set(), 1, 1) == sample(able, 3, 0, 1, 1)
    drawing.forget(1)
    assert drawing.draw(able, set(), 1, 1) == sample(able, 3, 0, 1, 1)


def test_a_number_searched_for_by_the_runs_seed_is_not_drawn_more_often_with_a_secret(
    tmp_path: Path,
) -> None:
    rounds, honest = range(1, 101), [(node, node) for node in range(1, 10)]

    def turns(number: int, seed: int) -> int:
        able = [*honest, (10, number)]
        return sum(10 in sample(able, 1, seed, 1, round_) for round_ in rounds[:20])

    best = max(range(100, 400), key=lambda number: turns(number, 0))
    assert turns(best, 0) >= 7
    secret = sampling_secret(tmp_path)
    assert sampling_secret(tmp_path) == secret > 2**64
    assert (tmp_path / "sampling.secret").stat().st_mode & 0o777 == 0o600
    able = [*honest, (10, best)]
    fair = [sum(10 in sample(able, 1, secret + k, 1, r) for r in rounds) for k in range(10)]
    assert sum(fair) / len(fair) < 20
    (tmp_path / "sampling.secret").write_text("no number")
    with pytest.raises(RecastError, match="delete it"):
        sampling_secret(tmp_path)


def test_clients_are_drawn_by_the_secret_where_there_is_one(federation: Make) -> None:
    turns = []
    for secret in (None, 1, 2**100):
        made = federation(nodes=6, rounds=8, clients_per_round=1, secret=secret)
        made.go()
        turns.append([made.trained(node) for node in range(1, 7)])
    assert turns[0] != turns[1] != turns[2]
