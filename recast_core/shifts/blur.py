"""Blurs of a lens or of movement. Each: int32 [N, C, H, W], seeds [N], severity -> the same."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from recast_core.shifts.draws import below, words
from recast_core.shifts.sampling import ONE, affine, along, mirror, rounded, scale_of

_SIGMA = (0.6, 0.9, 1.3, 1.8, 2.4)
_RADIUS = (1.0, 1.5, 2.0, 2.6, 3.3)
_LEAST_RADIUS = 0.75
"""What still reaches the four neighbours, however small the image is."""
_HALF_PATH = (1.5, 2.5, 3.5, 4.5, 6.0)
_ZOOM = (1.15, 1.27, 1.40, 1.55, 1.75)
_ZOOM_STEPS = 5


def gblur(x: Tensor, _seeds: Tensor, severity: int) -> Tensor:
    """Blur with a Gaussian."""
    sigma = _SIGMA[severity - 1] * scale_of(x)
    reach = math.ceil(3 * sigma)
    raw = [math.exp(-(tap**2) / (2 * sigma**2)) for tap in range(-reach, reach + 1)]
    taps = [round(4096 * weight / sum(raw)) for weight in raw]
    taps[reach] += 4096 - sum(taps)
    once = rounded(_filtered(x, taps, 2), 8)
    return rounded(_filtered(once, taps, 3), 16)


def defocus(x: Tensor, _seeds: Tensor, severity: int) -> Tensor:
    """Blur with a disk, as a lens out of focus does."""
    radius = max(_RADIUS[severity - 1] * scale_of(x), _LEAST_RADIUS)
    height, width = x.shape[-2:]
    reach = int(math.sqrt(radius**2 + 0.5))
    padded = _padded(_padded(x, reach, 2), reach, 3)
    sums = torch.cumsum(padded, 3, dtype=torch.int32)
    sums = torch.cat([torch.zeros_like(sums[..., :1]), sums], 3)
    total, area = torch.zeros_like(x), 0
    for row in range(-reach, reach + 1):
        half = int(math.sqrt(radius**2 + 0.5 - row**2))
        lines = sums[:, :, row + reach : row + reach + height]
        total += lines[..., reach + half + 1 : reach + half + 1 + width]
        total -= lines[..., reach - half : reach - half + width]
        area += 2 * half + 1
    return (total + area // 2) // area


def motion(x: Tensor, seeds: Tensor, severity: int) -> Tensor:
    """Blur along a line of random direction."""
    angle = below(words(seeds, 0, 1)[:, 0], 64)
    met = along(x, angle, _HALF_PATH[severity - 1] * scale_of(x))
    total = torch.zeros_like(x)
    for image in met:
        total += image
    return (total + len(met) // 2) // len(met)


def zoom(x: Tensor, _seeds: Tensor, severity: int) -> Tensor:
    """Blur towards the centre, as an approach during the exposure does."""
    total = torch.zeros_like(x)
    for step in range(_ZOOM_STEPS):
        factor = 1 + (_ZOOM[severity - 1] - 1) * step / (_ZOOM_STEPS - 1)
        inverse = round(ONE / factor)
        total += affine(x, (inverse, 0, 0, 0, inverse, 0))
    return (total + (_ZOOM_STEPS << 15)) // (_ZOOM_STEPS << 16)


def _padded(x: Tensor, reach: int, dim: int) -> Tensor:
    side = x.shape[dim]
    return x.index_select(dim, mirror(torch.arange(-reach, side + reach, device=x.device), side))


def _filtered(x: Tensor, taps: list[int], dim: int) -> Tensor:
    """Correlate with whole-number weights along one dimension."""
    side = x.shape[dim]
    padded = _padded(x, len(taps) // 2, dim)
    total = torch.zeros_like(x)
    for start, weight in enumerate(taps):
        total += padded.narrow(dim, start, side) * weight
    return total
