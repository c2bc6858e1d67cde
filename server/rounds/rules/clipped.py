"""The mean of updates that are clipped twice, without those that point away from the others.

To a length first, then to a distance from the coordinates' median of those that agree, which is
centred clipping (Karimireddy et al., 2021). Both limits are medians of the round itself, and so is
that of weights: fewer than half of the clients move none of them far.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from recast_core.wire.codec import Vector
from server.rounds.contribution import Contribution
from server.rounds.rules.agreement import agreeing
from server.rounds.rules.stacked import (
    Numbers,
    Stack,
    lengths,
    lower_median,
    moved,
    usual_length,
)

# Times the median length that an update may have.
BOUND = 2.0
# Times the median count of examples that a client's may weigh: where three of ten claim as many as
# they may, the other seven still decide.
HEAVIEST = 1.5
# Bytes of offsets: of more nothing is kept between the mean and the shares.
_REMEMBERED = 4 << 20


def clipped_mean(start: Vector, contributions: Sequence[Contribution]) -> Vector:
    """``start`` moved by the mean of the clipped offsets, by examples: float32 ``[D]``.

    Of one or two contributions only the first limit clips any.
    """
    if not contributions:
        return start.copy()
    stack = Stack.of(contributions)
    rows = _factors(stack)[:, None] * stack.offsets
    kept, centre = _kept(rows, stack.doubted)
    heaviest = HEAVIEST * lower_median(stack.weights)
    distances, weights = lengths(rows - centre), np.minimum(stack.weights, heaviest) * kept
    usual = distances[kept & (lengths(rows) > 0)]
    near = _within(distances, lower_median(usual)) if len(usual) > 2 else np.ones(len(rows))
    apart = near[:, None] * (rows - centre)
    return moved(start, centre + (weights[:, None] * apart).sum(0) / weights.sum())


def clipped_shares(contributions: Sequence[Contribution]) -> list[float]:
    """What is left of each contribution's length; 0 of those that point away."""
    if not contributions:
        return []
    stack = Stack.of(contributions)
    factors = _factors(stack)
    kept, _ = _kept(factors[:, None] * stack.offsets, stack.doubted)
    return stack.as_given(factors * kept)


def _factors(stack: Stack) -> Numbers:
    return _within(lengths(stack.offsets), BOUND * usual_length(stack.offsets))


def _kept(rows: Numbers, doubted: NDArray[np.bool_]) -> tuple[NDArray[np.bool_], Numbers]:
    """Which rows count, and the coordinates' median of them.

    Rows of zeros, of clients that could learn nothing, do not take part in the median, and count.
    """
    if rows.nbytes > _REMEMBERED:
        return _found(rows, doubted)
    return _again(rows.tobytes(), rows.shape, doubted.tobytes())


@lru_cache(maxsize=1)
def _again(
    rows: bytes, shape: tuple[int, int], doubted: bytes
) -> tuple[NDArray[np.bool_], Numbers]:
    """A round's mean is followed by its shares, which ask for the same."""
    kept, centre = _found(np.frombuffer(rows).reshape(shape), np.frombuffer(doubted, bool))
    kept.setflags(write=False)
    centre.setflags(write=False)
    return kept, centre


def _found(rows: Numbers, doubted: NDArray[np.bool_]) -> tuple[NDArray[np.bool_], Numbers]:
    told, kept = lengths(rows) > 0, np.ones(len(rows), bool)
    if told.sum() < 3:
        return kept, np.zeros(rows.shape[1])
    kept[told] = agreeing(rows[told], doubted[told])
    centre: Numbers = np.median(rows[told & kept], axis=0)
    return kept, centre


def _within(found: Numbers, bound: float) -> Numbers:
    factors: Numbers = np.where(found > bound, bound / np.maximum(found, 1e-300), 1.0)
    return factors
