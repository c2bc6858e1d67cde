"""Whoever withholds its list of classes, lies about it or pads it harms itself alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from protos import recast_v1_pb2 as pb
from recast_core.classes import list_hash
from server.exchange.class_lists import MOST_NAMES, MOST_TEXT, within_reason

PETS = ("dog", "cat", "bird")
Script = Callable[[pb.ToClient, pb.ToServer], object]


def says(announced: tuple[str, ...], answered: tuple[str, ...] | None) -> Script:
    """A client that announces one list and answers with another, or never (``None``)."""

    def script(question: pb.ToClient, right: pb.ToServer) -> object:
        if question.WhichOneof("body") == "hello":
            (task,), (told,) = question.hello.tasks, right.hello.tasks
            told.classes, told.class_hash = len(announced), list_hash(announced)
            if task.wants_classes:
                if answered is None:
                    return []
                told.class_names.extend(answered)
            elif task.classes and set(announced) <= set(task.classes):
                told.classes, told.class_hash = len(task.classes), task.class_hash
        return right

    return script


@pytest.mark.parametrize("answer", [None, ("dog", "cat"), ()], ids=["silent", "another", "none"])
@pytest.mark.parametrize("bad", [1, 3, 5])
def test_low_node_ids_that_share_a_hash_keep_nobody_else_out(
    federation: Callable[..., Any], bad: int, answer: tuple[str, ...] | None
) -> None:
    scripts = {n: says(PETS, answer if n <= bad else PETS) for n in range(1, 8)}
    made = federation(nodes=7, scripts=scripts, deadline=60.0, max_lag=10.0)
    made.go()
    assert made.registry.class_lists(made.run) == {1: PETS}
    trained = {node for node in range(1, 8) if made.trained(node)}
    # Whoever kept silent is of the list that it announced; whoever said another is left out.
    assert trained >= set(range(bad + 1, 8))
    if answer is not None:
        asked = {n for n in range(1, bad + 1) if _was_asked(made, n)}
        assert trained == set(range(1, 8)) - asked
        assert made.reasons()["classes"] == len(asked)
    assert made.clock.now < 30


def _was_asked(made: Any, node: int) -> bool:
    asked = made.grid.nodes[node].asked
    return any(q.hello.tasks[0].wants_classes for q in asked if q.WhichOneof("body") == "hello")


def test_a_list_is_asked_of_one_node_where_that_answers(federation: Callable[..., Any]) -> None:
    others = ("cat", "dog")
    scripts = {n: says(PETS, PETS) if n % 2 else says(others, others) for n in range(1, 7)}
    made = federation(nodes=6, scripts=scripts)
    made.go()
    assert [n for n in range(1, 7) if _was_asked(made, n)] == [1, 2]
    assert made.registry.class_lists(made.run) == {1: ("bird", "cat", "dog")}


def test_one_client_cannot_make_a_task_of_thousands_of_classes(
    federation: Callable[..., Any],
) -> None:
    many = tuple(f"k{n}" for n in range(MOST_NAMES + 1))  # as a small file may hold
    scripts = {1: says(many, many)} | {n: says(PETS, PETS) for n in (2, 3)}
    made = federation(nodes=3, scripts=scripts)
    made.go()
    assert made.registry.class_lists(made.run) == {1: PETS}
    assert made.reasons() == {"classes": 1}
    assert not made.trained(1)
    assert made.grid.bytes[2, "down"] < 2_000


def test_long_lists_pass_where_most_have_them_and_many_liars_together_do_not() -> None:
    species = tuple(f"s{n:05}" for n in range(10_000))
    assert within_reason({species: 3, PETS: 2})[1] == []
    assert within_reason({species: 1}) == ({species: 1}, [])
    assert within_reason({species: 1, PETS: 2}) == ({PETS: 2}, [species])
    parts: dict[tuple[str, ...], int] = {
        tuple(f"{liar}-{n}" for n in range(1000)): 1 for liar in range(20)
    }
    book = tuple(f"{number:0200}" for number in range(MOST_TEXT // 200 + 1))
    assert within_reason({book: 1, PETS: 2}) == ({PETS: 2}, [book])
    assert within_reason({book: 3, PETS: 2})[1] == []
    kept, left = within_reason({PETS: 1, ("cat", "horse"): 1, **parts})
    assert len({name for names in kept for name in names}) <= MOST_NAMES
    assert {PETS, ("cat", "horse")} <= set(kept)
    assert len(left) == 16
    assert within_reason({}) == ({}, [])
