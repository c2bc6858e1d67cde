"""The mean weighted by examples: FedAvg (McMahan et al., 2017). One liar can decide it."""

from __future__ import annotations

from collections.abc import Sequence

from recast_core.wire.codec import Vector
from server.rounds.contribution import Contribution
from server.rounds.rules.stacked import Stack, moved, weighted_mean


def average(start: Vector, contributions: Sequence[Contribution]) -> Vector:
    """``start`` moved by the mean offset, weighted by examples: float32 ``[D]``.

    Bit-identical for any order of arrival: summed in float64, in an order that the contributions
    themselves decide.
    """
    if not contributions:
        return start.copy()
    stack = Stack.of(contributions)
    return moved(start, weighted_mean(stack, stack.offsets))
