"""The mean of each coefficient without its extremes (Yin et al., 2018)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from recast_core.wire.codec import Vector
from server.rounds.contribution import Contribution
from server.rounds.rules.stacked import Stack, moved

# Left out at either end, of all.
TRIM = 0.3


def trimmed_mean(start: Vector, contributions: Sequence[Contribution]) -> Vector:
    """``start`` moved by the mean of the middle offsets of each coefficient: float32 ``[D]``.

    Every client counts the same. Of three at most one is left out at either end, of fewer none.
    """
    if not contributions:
        return start.copy()
    ordered = np.sort(Stack.of(contributions).offsets, axis=0)
    count = len(ordered)
    cut = min(round(TRIM * count), (count - 1) // 2)
    return moved(start, ordered[cut : count - cut].mean(0))
