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

from protos import recast_v1_pb2 as pb
from recast_core.privacy.clipping import Double, bounded, length
from recast_core.privacy.discrete import COARSEST, discrete_gaussian
from recast_core.privacy.noise import Uniform
from recast_core.secure.field import WIDTHS, Field
from recast_core.secure.shamir import threshold
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
# If all add their part of a noise, and none is dishonest, it is less than the square root of three
# times as large as it must be; and it is hardly ever eight times as large as usual.
_RICHER, _FARTHEST = math.sqrt(3.0), 8.0
# Standard deviation of one client's part of a noise, in steps.
_FINE = 2 * COARSEST


@dataclass(frozen=True)
class Levels:
    """How the offsets of one sum are counted.

    Attributes:
        width: bytes of a number; see ``Field``.
        levels: of an offset on either side of 0; or, with ``clips``, of their length.
        step: between two of them.
        unit: examples that one unit of weight stands for.
        clips: offsets are shortened to ``levels`` in L2, rather than each to that by itself.
        alike: every weight is 1.
        within: a last number counts whose offsets were no longer than that, as 1 or else -1.
        deviation: of the noise, in steps, that honest clients of a sum must have together.
    """

    width: int
    levels: int
    step: float
    unit: float
    clips: bool = False
    alike: bool = False
    within: bool = False
    deviation: float = 0.0

    @property
    def field(self) -> Field:
        """Where the numbers are added."""
        return Field(self.width)

    @property
    def heaviest(self) -> int:
        """The largest weight."""
        return 1 if self.alike else HEAVIEST

    @property
    def beside(self) -> int:
        """How many numbers are added besides offsets."""
        return int(self.within)

    def weight(self, examples: int) -> int:
        """The weight of a client with so many examples, from 1 to ``HEAVIEST``."""
        return 1 if self.alike else _weight(examples, self.unit)

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
        if self.clips:
            return self._shortened(bounded(wide, reach) / self.step)
        if peak > reach:
            wide = wide * (reach / peak)
        counted: Integers = np.rint(wide / self.step).astype(np.int64)
        return np.clip(counted, -self.levels, self.levels)

    def term(self, offsets: Vector, examples: int) -> Integers:
        """What a client adds to the sum, but for noise: ``[D]``, and one more with ``within``.

        Raises:
            CodecError: NaN or infinity.
        """
        counted = self.count(offsets) * self.weight(examples)
        if not self.within:
            return counted
        inside = length(offsets) <= self.step * self.levels
        return np.append(counted, np.int64(1 if inside else -1))

    def noise(self, uniform: Uniform, members: int, count: int) -> Integers:
        """A client's part of the noise, of a sum of so many members: ``[count]``.

        ``threshold`` of them are in the sum at least, of which those that do not open it may help
        the server and know their own: the others must have all of it.

        Raises:
            ValueError: a part that would be too small for a sum of integers.
        """
        needed = threshold(members)
        part = self.deviation / math.sqrt(2 * needed - members)
        if not COARSEST <= part < self.field.prime:
            raise ValueError(f"noise of {part:.3g} steps a client cannot hide integers")
        return discrete_gaussian(uniform, part, count)

    def is_plausible(self, total: Integers, weight: int) -> bool:
        """Whether terms of this weight together can add up to ``total``."""
        noise = _FARTHEST * _RICHER * self.deviation
        reach = np.full(len(total), self.levels * weight + noise)
        if self.within:
            reach[-1] = weight + noise
        return bool((np.abs(total) <= reach).all())

    def total(self, total: Integers, weight: int) -> Double:
        """The sum of the offsets, each times its weight: float64 ``[D]``.

        With ``clips`` it is shortened to what honest clients can have together. No two sums come to
        be further apart by that, so that one client moves it by no more than before.
        """
        exact = (total[: -1 if self.within else None] * self.step).astype(np.float64)
        if not self.clips:
            return exact
        noisy = _RICHER * self.deviation * (math.sqrt(len(exact)) + _FARTHEST)
        return bounded(exact, (self.levels * weight + noisy) * self.step)

    def mean(self, total: Integers, weight: int) -> Vector:
        """The weighted mean of the offsets, float32 ``[D]``."""
        return (self.total(total, weight) / weight).astype(np.float32)

    def _shortened(self, steps: Double) -> Integers:
        """In whole steps, no longer than before where rounding would make them too long."""
        counted = np.rint(steps)
        if length(counted) > self.levels:
            counted = np.trunc(steps)
        found: Integers = counted.astype(np.int64)
        return found


def told(levels: Levels) -> pb.SecureRound:
    """What clients are told of how to count."""
    return pb.SecureRound(
        width=levels.width,
        levels=levels.levels,
        step=levels.step,
        unit=levels.unit,
        clips=levels.clips,
        alike=levels.alike,
        within=levels.within,
        deviation=levels.deviation,
    )


def levels_of(message: pb.SecureRound) -> Levels:
    """How to count, as ``told``."""
    return Levels(
        message.width,
        message.levels,
        message.step,
        message.unit,
        message.clips,
        message.alike,
        message.within,
        message.deviation,
    )


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
    heaviest = _heaviest(examples, unit, members)
    wanted = _USUAL * ((1 << (min(bits, 16) - 1)) - 1 or 1)
    width, levels = _narrowest(wanted, heaviest)
    return Levels(width, levels, float(np.float32(_RATES * rate / levels)), float(np.float32(unit)))


def clipped_plan(
    examples: Collection[int], members: int, clip: float, numbers: int, bits: int
) -> Levels:
    """Likewise where each client's ``numbers`` offsets are shortened to the length ``clip``."""
    unit = max(median(examples), 1) / UNITS
    width, levels = _narrowest(_wanted(numbers, bits), _heaviest(examples, unit, members))
    return Levels(width, levels, _down(clip / levels), float(np.float32(unit)), clips=True)


def private_plan(
    members: int, clip: float, noise: float, numbers: int, bits: int, *, within: bool
) -> Levels:
    """Likewise where all count alike and clients add noise, if any, ``noise`` clips in a sum.

    Args:
        members: of the largest sum.
        clip: length that offsets may have.
        noise: standard deviation of what honest clients add, in clips; 0 where they add none.
        numbers: of offsets.
        bits: of an update that is not hidden.
        within: it is counted whose offsets were no longer than the clip.
    """
    wanted = _wanted(numbers, bits)
    if noise:
        wanted = max(wanted, math.ceil(_FINE * math.sqrt(members / 3 + 2) / noise))
    width, levels = _narrowest(wanted, members + _FARTHEST * _RICHER * noise)
    deviation = -_down(-noise * levels)
    step = _down(clip / levels)
    return Levels(width, levels, step, 1.0, True, True, within, deviation)


def _wanted(numbers: int, bits: int) -> int:
    """Levels of the length at which its usual number has as many as ``bits`` bits have."""
    return math.ceil(math.sqrt(numbers) * ((1 << (min(bits, 16) - 1)) - 1 or 1))


def _weight(examples: int, unit: float) -> int:
    return min(max(round(examples / unit), 1), HEAVIEST)


def _heaviest(examples: Collection[int], unit: float, members: int) -> int:
    weights = sorted((_weight(n, unit) for n in examples), reverse=True)
    return sum(weights[:members])


def _narrowest(wanted: int, heaviest: float) -> tuple[int, int]:
    """The width at which so many levels fit, or the largest; and how many do."""
    for width in WIDTHS:
        levels = int(Field(width).prime // (2 * _SLACK * heaviest))
        if levels >= wanted:
            break
    return width, max(levels, 1)


def _down(value: float) -> float:
    """The float32 next to ``value`` that is no larger."""
    near = np.float32(value)
    return float(near if float(near) <= value else np.nextafter(near, np.float32(-np.inf)))
