"""The mean of updates that are clipped twice: to a length, and to a distance from their median.

Both limits are medians of the round itself, so that fewer than half of the clients move neither.
The second is centred clipping (Karimireddy et al., 2021), about the coordinates' median.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from recast_core.wire.codec import Vector
from server.rounds.contribution import Contribution
from server.rounds.rules.stacked import (
    Numbers,
    Stack,
    lengths,
    lower_median,
    moved,
    usual_length,
    weighted_mean,
)

# Times the median length that an update may have.
BOUND = 2.0


def clipped_mean(start: Vector, contributions: Sequence[Contribution]) -> Vector:
    """``start`` moved by the mean of the clipped offsets, by examples: float32 ``[D]``.

    Of one or two contributions the second limit clips none.
    """
    if not contributions:
        return start.copy()
    stack = Stack.of(contributions)
    shortened = _shortened(stack)
    centre, factors = _about(shortened)
    return moved(start, centre + weighted_mean(stack, factors[:, None] * (shortened - centre)))


def clipped_shares(contributions: Sequence[Contribution]) -> list[float]:
    """What is left of each contribution's length where that is more than ``BOUND`` medians."""
    if not contributions:
        return []
    stack = Stack.of(contributions)
    return stack.as_given(_within(lengths(stack.offsets), BOUND * usual_length(stack.offsets)))


def _shortened(stack: Stack) -> Numbers:
    factors = _within(lengths(stack.offsets), BOUND * usual_length(stack.offsets))
    found: Numbers = factors[:, None] * stack.offsets
    return found


def _about(rows: Numbers) -> tuple[Numbers, Numbers]:
    """The coordinates' median, and what is left of each row's distance from it.

    Rows of zeros, of clients that could learn nothing, do not take part in the medians.
    """
    told = lengths(rows) > 0
    if told.sum() < 3:
        return np.zeros_like(rows[0]), np.ones(len(rows))
    centre: Numbers = np.median(rows[told], axis=0)
    distances = lengths(rows - centre)
    return centre, _within(distances, lower_median(distances[told]))


def _within(found: Numbers, bound: float) -> Numbers:
    factors: Numbers = np.where(found > bound, bound / np.maximum(found, 1e-300), 1.0)
    return factors
