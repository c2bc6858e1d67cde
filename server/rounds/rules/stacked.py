"""What the rules have in common: a round's contributions as arrays, in an order of their own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recast_core.wire.codec import Vector
from server.rounds.contribution import Contribution

Numbers = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Stack:
    """Contributions in an order that they decide themselves, not their arrival.

    Attributes:
        weights: float64 ``[N]``, more than 0.
        offsets: float64 ``[N, D]``.
        places: where each one was among those given, ``[N]``.
        doubted: bool ``[N]``.
    """

    weights: Numbers
    offsets: Numbers
    places: tuple[int, ...]
    doubted: NDArray[np.bool_]

    @classmethod
    def of(cls, contributions: Sequence[Contribution]) -> Stack:
        """Of one contribution or more."""
        order = sorted(
            range(len(contributions)),
            key=lambda i: (
                contributions[i].examples,
                contributions[i].offsets.tobytes(),
                contributions[i].doubted,
            ),
        )
        ordered = [contributions[i] for i in order]
        weights = np.array([c.examples for c in ordered], np.float64)
        offsets = np.stack([c.offsets for c in ordered]).astype(np.float64)
        doubted = np.array([c.doubted for c in ordered], bool)
        return cls(weights, offsets, tuple(order), doubted)

    def as_given(self, values: Numbers) -> list[float]:
        """A value for each contribution, ``[N]``, in the order that they were given in."""
        found = [0.0] * len(self.places)
        for place, value in zip(self.places, values, strict=True):
            found[place] = float(value)
        return found


def lengths(rows: Numbers) -> Numbers:
    """The Euclidean length of each row of ``[N, D]``: float64 ``[N]``."""
    found: Numbers = np.sqrt(np.square(rows).sum(1))
    return found


def lower_median(values: Numbers) -> float:
    """The middle one of ``[N]`` values, of two the smaller: one large value of two decides nothing.

    0 where there are none.
    """
    return float(np.sort(values)[(len(values) - 1) // 2]) if len(values) else 0.0


def usual_length(rows: Numbers) -> float:
    """The median length of the rows that are not zero; clients that learned nothing say nothing."""
    found = lengths(rows)
    return lower_median(found[found > 0])


def moved(start: Vector, offset: Numbers | Vector) -> Vector:
    """``start`` and an offset, both ``[D]``: float32."""
    return np.asarray(start + offset, np.float32)


def weighted_mean(stack: Stack, rows: Numbers) -> Numbers:
    """The mean of the stack's rows, or of others in their place, ``[N, D]``: float64 ``[D]``."""
    found: Numbers = (stack.weights[:, None] * rows).sum(0) / stack.weights.sum()
    return found
