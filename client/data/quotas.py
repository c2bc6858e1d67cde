"""Dividing whole numbers in proportion."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

_Counts = npt.NDArray[np.int64]


def proportional(total: int, weights: _Counts, rng: np.random.Generator) -> _Counts:
    """Divide `total` in proportion to integer `weights` by largest remainder, in exact integers."""
    whole, remainder = np.divmod(weights * total, weights.sum())
    left = total - int(whole.sum())
    first = np.lexsort((rng.random(len(weights)), -remainder))[:left]
    whole[first] += 1
    return whole
