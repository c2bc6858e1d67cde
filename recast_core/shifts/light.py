"""Other light. Each: int32 [N, C, H, W], seeds [N], severity -> the same."""

from __future__ import annotations

import torch
from torch import Tensor

from recast_core.shifts.draws import normal
from recast_core.shifts.sampling import rounded

_LOW = (
    (1.2, 0.60, 0.010),
    (1.5, 0.40, 0.015),
    (1.8, 0.22, 0.020),
    (2.0, 0.14, 0.025),
    (2.2, 0.09, 0.030),
)
"""Gamma, gain and noise of each severity."""
_BRIGHT = (
    (0.80, 0.95, 0.08),
    (0.60, 0.88, 0.16),
    (0.45, 0.80, 0.25),
    (0.38, 0.72, 0.33),
    (0.30, 0.64, 0.40),
)
"""Gamma, gain and offset of each severity."""
_CONTRAST = (0.55, 0.33, 0.18, 0.11, 0.07)


def lowlight(x: Tensor, seeds: Tensor, severity: int) -> Tensor:
    """Darken, the dark parts most, with the noise of a sensor at high gain."""
    gamma, gain, noise = _LOW[severity - 1]
    dark = _curve(x, gamma, gain, 0.0)
    sigma = round(noise * 255 * 16)
    return rounded((dark << 10) + normal(seeds, 0, *x.shape[1:]) * sigma, 14)


def bright(x: Tensor, _seeds: Tensor, severity: int) -> Tensor:
    """Overexpose: the dark parts are lifted, the bright ones cut off."""
    return rounded(_curve(x, *_BRIGHT[severity - 1]), 4)


def contrast(x: Tensor, _seeds: Tensor, severity: int) -> Tensor:
    """Draw every pixel to the image's mean."""
    count = x[0].numel()
    mean = (x.sum((1, 2, 3), keepdim=True) + count // 2) // count
    return (mean + rounded((x - mean) * round(_CONTRAST[severity - 1] * 4096), 12)).int()


def _curve(x: Tensor, gamma: float, gain: float, offset: float) -> Tensor:
    """Return 16 · 255 · (gain · (x / 255)^gamma + offset) as int32."""
    table = [round(16 * 255 * (gain * (level / 255) ** gamma + offset)) for level in range(256)]
    return torch.tensor(table, dtype=torch.int32, device=x.device)[x.long()]
