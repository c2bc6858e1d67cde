"""Aggregate the coefficients of one task: FedAvg over offsets (McMahan et al., 2017)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from recast_core.wire.codec import Vector


@dataclass(frozen=True, eq=False)
class Contribution:
    """What one client adds to a round of one task.

    Attributes:
        offsets: from the broadcast, float32 ``[D]``.
        examples: the weight, at least 1.
    """

    offsets: Vector
    examples: int


def average(start: Vector, contributions: Sequence[Contribution]) -> Vector:
    """``start`` moved by the mean offset, weighted by examples: float32 ``[D]``.

    Bit-identical for any order of arrival: summed in float64, in an order that the contributions
    themselves decide.
    """
    if not contributions:
        return start.copy()
    ordered = sorted(contributions, key=lambda c: (c.examples, c.offsets.tobytes()))
    weights = np.array([c.examples for c in ordered], np.float64)
    offsets = np.stack([c.offsets for c in ordered]).astype(np.float64)
    mean = (weights[:, None] * offsets).sum(0) / weights.sum()
    return np.asarray(start + mean, np.float32)
