"""From offsets to integers that may be added, and from their sum to a mean.

All clients of a sum count in the same step, so that the sum of their integers is the sum of what
they stand for, to the bit and in any order.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass
from statistics import median

import numpy as np
from numpy.typing import NDArray

from recast_core.secure.field import WIDTHS, Field
from recast_core.wire.codec import CodecError, Vector

Integers = NDArray[np.int64]

# A client with the median's examples has this weight; the heaviest has three times as much.
UNITS = 4
HEAVIEST = 3 * UNITS
# Beyond what sums can reach: a wrong share makes them fall there, but for one in 4 to the power of
# the vector's length.
_SLACK = 4
# Offsets reach an eighth of the range at the most, as a rule.
_USUAL = 8
# A coefficient that moved by so many times the learning rate has moved far.
_RATES = 64


@dataclass(frozen=True)
class Levels:
    """How the offsets of one sum are counted.

    Attributes:
        width: bytes of a number; see ``Field``.
        levels: of an offset on either side of 0.
        step: between two of them.
        unit: examples that one unit of weight stands for.
    """

    width: int
    levels: int
    step: float
    unit: float

    @property
    def field(self) -> Field:
        """Where the numbers are added."""
        return Field(self.width)

    def weight(self, examples: int) -> int:
        """The weight of a client with so many examples, from 1 to ``HEAVIEST``."""
        return min(max(round(examples / self.unit), 1), HEAVIEST)

    def count(self, offsets: Vector) -> Integers:
        """Offsets ``[D]`` in steps; a vector that reaches further is shortened to what they reach.

        Raises:
            CodecError: NaN or infinity.
        """
        wide = offsets.astype(np.float64)
        peak = float(np.abs(wide).max(initial=0.0))
        if not math.isfinite(peak):
            raise CodecError("the vector holds NaN or infinity")
        reach = self.step * self.levels
        if peak > reach:
            wide = wide * (reach / peak)
        counted: Integers = np.rint(wide / self.step).astype(np.int64)
        return np.clip(counted, -self.levels, self.levels)

    def is_plausible(self, total: Integers, weight: int) -> bool:
        """Whether terms of this weight together can add up to ``total``."""
        return bool((np.abs(total) <= self.levels * weight).all())

    def mean(self, total: Integers, weight: int) -> Vector:
        """The weighted mean of the offsets, float32 ``[D]``."""
        return (total * self.step / weight).astype(np.float32)


def plan(examples: Collection[int], members: int, rate: float, bits: int) -> Levels:
    """How to count in a round.

    The narrowest numbers in which offsets are at least as fine as in an update of ``bits`` bits.

    Args:
        examples: of every client that is asked.
        members: of the largest sum.
        rate: the learning rate, which says how far offsets reach.
        bits: of an update that is not hidden.
    """
    unit = max(median(examples), 1) / UNITS
    weights = sorted((min(max(round(n / unit), 1), HEAVIEST) for n in examples), reverse=True)
    heaviest = sum(weights[:members])
    wanted = _USUAL * ((1 << (min(bits, 16) - 1)) - 1 or 1)
    for width in WIDTHS:
        levels = Field(width).prime // (2 * _SLACK * heaviest)
        if levels >= wanted:
            break
    return Levels(width, levels, float(np.float32(_RATES * rate / levels)), float(np.float32(unit)))
