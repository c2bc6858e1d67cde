"""Another place of the camera. Each: int32 [N, C, H, W], seeds [N], severity -> the same."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from recast_core.shifts.draws import below, words
from recast_core.shifts.sampling import ONE, affine, rounded

_TURN = ((5, 15), (15, 25), (25, 45), (45, 60), (60, 90))
"""Smallest and largest turn in degrees."""
_FAR = (1.2, 1.5, 1.8, 2.2, 2.7)
_NEAR = (1.15, 1.30, 1.50, 1.75, 2.00)
_SHEAR = (0.15, 0.30, 0.45, 0.60, 0.80)
_OFF_CENTRE = 0.15
_STEPS = 256


def rotate(x: Tensor, seeds: Tensor, severity: int) -> Tensor:
    """Turn about the centre, to the left or the right."""
    least, most = (math.radians(degrees) for degrees in _TURN[severity - 1])
    angles = [least + (most - least) * step / (_STEPS - 1) for step in range(_STEPS)]
    drawn = words(seeds, 0, 2)
    step = below(drawn[:, 0], _STEPS)
    cosine, sine = (
        torch.tensor([round(f(angle) * ONE) for angle in angles], device=x.device)[step]
        for f in (math.cos, math.sin)
    )
    sine = sine * _sign(drawn[:, 1])
    return rounded(affine(x, (cosine, -sine, 0, sine, cosine, 0)), 16)


def far(x: Tensor, seeds: Tensor, severity: int) -> Tensor:
    """Show from further away and off the centre; what was outside is mirrored."""
    height, width = x.shape[-2:]
    drawn = words(seeds, 0, 2)
    moves = (
        below(drawn[:, place], 2 * limit + 1) - limit
        for place, limit in enumerate(round(_OFF_CENTRE * side * ONE) for side in (width, height))
    )
    size = round(_FAR[severity - 1] * ONE)
    across, down = moves
    return rounded(affine(x, (size, 0, across, 0, size, down)), 16)


def near(x: Tensor, _seeds: Tensor, severity: int) -> Tensor:
    """Show the centre from close by."""
    size = round(ONE / _NEAR[severity - 1])
    return rounded(affine(x, (size, 0, 0, 0, size, 0)), 16)


def shear(x: Tensor, seeds: Tensor, severity: int) -> Tensor:
    """Lean to the left or the right."""
    lean = _sign(words(seeds, 0, 1)[:, 0]) * round(_SHEAR[severity - 1] * ONE)
    return rounded(affine(x, (ONE, lean, 0, 0, ONE, 0)), 16)


def _sign(drawn: Tensor) -> Tensor:
    return 1 - 2 * (drawn & 1)
