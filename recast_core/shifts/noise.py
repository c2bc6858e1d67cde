"""Noise of a sensor. Each: int32 [N, C, H, W], int64 seeds [N], severity -> int32 [N, C, H, W]."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

from recast_core.shifts.draws import NORMAL_ONE, normal, words
from recast_core.shifts.sampling import rounded

_GAUSS = (0.05, 0.10, 0.15, 0.20, 0.27)
_SPECKLE = (0.12, 0.25, 0.40, 0.55, 0.75)
_IMPULSE = (0.02, 0.05, 0.08, 0.12, 0.17)
_PHOTONS = (60, 25, 12, 7, 4)
_QUANTILE_BITS = 12
assert NORMAL_ONE == 1 << 10  # what the divisions below rely on


def gauss(x: Tensor, seeds: Tensor, severity: int) -> Tensor:
    """Add normal noise."""
    sigma = round(_GAUSS[severity - 1] * 255 * 16)
    return x + rounded(normal(seeds, 0, *x.shape[1:]) * sigma, 14)


def speckle(x: Tensor, seeds: Tensor, severity: int) -> Tensor:
    """Add normal noise in proportion to the brightness."""
    sigma = round(_SPECKLE[severity - 1] * 64)
    return x + rounded(normal(seeds, 0, *x.shape[1:]) * sigma * x, 16)


def impulse(x: Tensor, seeds: Tensor, severity: int) -> Tensor:
    """Turn pixels black or white, all channels at once."""
    height, width = x.shape[-2:]
    limit = round(_IMPULSE[severity - 1] * 2**32)
    chance = words(seeds, 0, 1, height, width)
    x = x.masked_fill(chance < limit, 0)
    return x.masked_fill(chance >= 2**32 - limit, 255)


def shot(x: Tensor, seeds: Tensor, severity: int) -> Tensor:
    """Count photons: a white pixel catches few of them, a dark one fewer."""
    table = _photon_table(_PHOTONS[severity - 1]).to(x.device)
    chance = words(seeds, 0, *x.shape[1:]) >> (32 - _QUANTILE_BITS)
    return table[(x.long() << _QUANTILE_BITS) + chance]


@lru_cache(maxsize=len(_PHOTONS))
def _photon_table(photons: int) -> Tensor:
    """Return int32 [256 * 4096]: for each grey level the quantiles of its brightness as counted."""
    mean = torch.arange(256, dtype=torch.float64)[:, None] * photons / 255
    counts = torch.arange(4 * photons + 40, dtype=torch.float64)
    chance = (torch.xlogy(counts, mean) - mean - torch.lgamma(counts + 1)).exp()
    middle = (torch.arange(1 << _QUANTILE_BITS, dtype=torch.float64) + 0.5) / (1 << _QUANTILE_BITS)
    found = torch.searchsorted(chance.cumsum(1), middle.expand(256, -1).contiguous())
    return (found * 255 / photons).round().clamp(0, 255).to(torch.int32).reshape(-1)
