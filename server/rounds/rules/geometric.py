"""The geometric median (Pillutla et al., 2022): the point with the least sum of distances."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from recast_core.wire.codec import Vector
from server.rounds.contribution import Contribution
from server.rounds.rules.stacked import Numbers, Stack, lengths, moved, usual_length

STEPS = 64
# Distances are taken for at least this part of an update's usual length: where the point comes to
# lie on an update, its distance would be no divisor.
SMOOTHING = 1e-3


def geometric_median(start: Vector, contributions: Sequence[Contribution]) -> Vector:
    """``start`` moved by the geometric median of the offsets, by examples: float32 ``[D]``.

    Smoothed Weiszfeld steps from the coordinates' median, ``STEPS`` of them: a fixed number, so
    that no last bit of a distance decides when to stop.
    """
    if not contributions:
        return start.copy()
    stack = Stack.of(contributions)
    return moved(start, _weiszfeld(stack))


def _weiszfeld(stack: Stack) -> Numbers:
    point: Numbers = np.median(stack.offsets, axis=0)
    least = SMOOTHING * usual_length(stack.offsets)
    for _ in range(STEPS if least > 0 else 0):
        pull = stack.weights / np.maximum(lengths(stack.offsets - point), least)
        point = (pull[:, None] * stack.offsets).sum(0) / pull.sum()
    return point
