"""Bounding what one client contributes, so that noise of a known size can hide it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from recast_core.wire.codec import Vector

Double = NDArray[np.float64]

# Shorter by this share, which float64 cannot lose again by rounding.
_SAFE = 1.0 - 1e-12


def bounded(offsets: Vector | Double, limit: float) -> Double:
    """``offsets [D]`` in float64, no longer than ``limit`` in L2, whatever they are.

    Offsets that are not finite come back as zeros: what cannot be bounded contributes nothing.
    """
    exact = np.asarray(offsets, np.float64)
    if not np.isfinite(exact).all():
        return np.zeros_like(exact)
    norm = length(exact)
    if norm <= limit:
        return exact
    return exact * (limit / norm * _SAFE)


def length(offsets: Vector | Double) -> float:
    """The L2 norm in float64, also where squares would overflow."""
    exact = np.asarray(offsets, np.float64)
    peak = float(np.abs(exact).max(initial=0.0))
    return peak * float(np.linalg.norm(exact / peak)) if peak else 0.0
