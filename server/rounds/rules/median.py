"""The median of each coefficient (Yin et al., 2018); every client counts the same."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from recast_core.wire.codec import Vector
from server.rounds.contribution import Contribution
from server.rounds.rules.stacked import Stack, moved


def coordinate_median(start: Vector, contributions: Sequence[Contribution]) -> Vector:
    """``start`` moved by the median of each offset: float32 ``[D]``; of one or two the mean."""
    if not contributions:
        return start.copy()
    return moved(start, np.median(Stack.of(contributions).offsets, axis=0))
