"""Where a task may start: a third of the clients decide; fewer who start elsewhere move nothing."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from protos import recast_v1_pb2 as pb
from recast_core.wire.messages import RefusedError
from server.rounds.contribution import Contribution
from server.rounds.nearest import from_here, origin

START, EARLIER, OTHER = (np.full(3, value, np.float32) for value in (0, 5, -2))
STATE: Any = SimpleNamespace(vector=START)


def learned(clients: int) -> dict[int, Contribution]:
    """What each has learned from where it started: a little, and no two the same."""
    return {node: Contribution(np.full(3, 0.1 * node, np.float32), 1 + node)
            for node in range(clients)}  # fmt: skip


def began(clients: int, away: int) -> dict[int, np.ndarray]:
    return {node: EARLIER if node < away else START for node in range(clients)}


@pytest.mark.parametrize("away", [0, 1, 2])
def test_what_a_few_start_elsewhere_with_is_not_where_the_task_starts(away: int) -> None:
    told = learned(9)
    found = from_here(told, began(9, away), STATE)
    for node, one in told.items():
        assert np.array_equal(found[node].offsets, one.offsets)
        assert found[node].examples == one.examples


@pytest.mark.parametrize(("clients", "away"), [(8, 3), (9, 3), (9, 9), (1, 1)])
def test_where_a_third_of_them_starts_elsewhere_each_counts_from_there(
    clients: int, away: int
) -> None:
    told = learned(clients)
    found = from_here(told, began(clients, away), STATE)
    for node, one in told.items():
        moved = EARLIER if node < away else START
        assert np.allclose(found[node].offsets, one.offsets + moved)
        assert found[node].examples == one.examples


def test_each_counts_from_the_earlier_task_that_it_has_named() -> None:
    told = learned(3)
    found = from_here(told, {0: EARLIER, 1: OTHER, 2: START}, STATE)
    for node, start in enumerate((EARLIER, OTHER, START)):
        assert np.allclose(found[node].offsets, told[node].offsets + start)


def test_nothing_was_told_by_nobody() -> None:
    assert from_here({}, {}, STATE) == {}


def test_a_start_that_was_not_offered_is_refused() -> None:
    assert origin(pb.Update(), STATE, {2: EARLIER}) is START
    assert origin(pb.Update(started=2), STATE, {2: EARLIER}) is EARLIER
    with pytest.raises(RefusedError, match="task 3, which was not offered"):
        origin(pb.Update(started=3), STATE, {2: EARLIER})
