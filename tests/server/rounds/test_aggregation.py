"""Averaging: weighted by examples, and the same bits for any order of arrival."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import permutations
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from recast_core.errors import RecastError
from recast_core.settings import Settings
from server.rounds import aggregation
from server.rounds.aggregation import Contribution, average, register_aggregation
from server.rounds.plan import RoundPlan

DIMENSION = 5
numbers = st.floats(-100, 100, width=32)
vectors = arrays(np.float32, DIMENSION, elements=numbers)
contributions = st.lists(
    st.builds(Contribution, vectors, st.integers(1, 10**6)), min_size=1, max_size=8
)


@given(vectors, contributions, st.randoms(use_true_random=False))
def test_the_order_of_arrival_does_not_change_a_bit(
    start: np.ndarray, given_: list[Contribution], random: object
) -> None:
    shuffled = list(given_)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert average(start, shuffled).tobytes() == average(start, given_).tobytes()


def test_offsets_that_cancel_give_the_same_bits_in_any_order() -> None:
    parts = [Contribution(np.array([x], np.float32), 1) for x in (1e20, 1, -1e20, 3)]
    zero = np.zeros(1, np.float32)
    found = {average(zero, list(order)).tobytes() for order in permutations(parts)}
    assert len(found) == 1


@given(vectors, contributions)
def test_the_mean_is_weighted_by_examples(start: np.ndarray, given_: list[Contribution]) -> None:
    wanted = start + np.average(
        [c.offsets.astype(np.float64) for c in given_],
        axis=0,
        weights=[c.examples for c in given_],
    )
    found = average(start, given_)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-4)


def test_a_client_with_three_times_the_examples_pulls_three_times_as_hard() -> None:
    given_ = [
        Contribution(np.array([4, 0], np.float32), 1),
        Contribution(np.array([0, 4], np.float32), 3),
    ]
    assert average(np.array([10, 20], np.float32), given_).tolist() == [11, 23]


def test_many_small_offsets_are_not_lost_in_float32() -> None:
    given_ = [Contribution(np.array([1 + i * 1e-7], np.float32), 1) for i in range(10000)]
    exact = np.mean([c.offsets.astype(np.float64) for c in given_])
    assert average(np.zeros(1, np.float32), given_)[0] == np.float32(exact)


def test_no_contribution_leaves_a_copy_of_the_start() -> None:
    start = np.array([1, 2], np.float32)
    found = average(start, [])
    assert found.tolist() == [1, 2]
    found += 1
    assert start.tolist() == [1, 2]


@pytest.mark.parametrize("count", [1, 3])
def test_equal_offsets_are_their_own_mean(count: int) -> None:
    offset = np.array([0.1, -7.3], np.float32)
    start = np.zeros(2, np.float32)
    given_ = [Contribution(offset, 7)] * count
    assert average(start, given_).tolist() == offset.tolist()


def test_a_rule_that_is_registered_can_be_named_in_the_settings(
    monkeypatch: pytest.MonkeyPatch, federation: Callable[..., Any]
) -> None:
    monkeypatch.setattr(aggregation, "_RULES", dict(aggregation._RULES))

    def first(start: np.ndarray, contributions: Sequence[Contribution]) -> np.ndarray:
        return start + min(contributions, key=lambda c: float(c.offsets[0])).offsets

    with pytest.raises(RecastError, match="unknown aggregation 'first': choose clipped, mean"):
        RoundPlan.of(Settings(aggregation="first"), 0.0)
    register_aggregation("first", first)
    register_aggregation("first", first)  # as a module that is loaded again does
    with pytest.raises(RecastError, match="'first' is registered already"):
        register_aggregation("first", average)
    plan = RoundPlan.of(Settings(aggregation="first"), 0.0)
    made = federation(nodes=3, aggregate=plan.aggregate)
    made.go()
    # The nodes answer 0.1, 0.2 and 0.3; their mean would be 0.2.
    np.testing.assert_allclose(made.moved(1), np.full(6, 0.1), rtol=1e-3)
