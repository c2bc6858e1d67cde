"""Faults of coding, colour and sensor grid. Each: int32 [N, C, H, W], seeds, severity -> same."""

from __future__ import annotations

import torch
from torch import Tensor

from recast_core.shifts.draws import field
from recast_core.shifts.sampling import STEP, bilinear, rounded, scale_of

_BLOCK = (1.4, 1.8, 2.46, 3.6, 5.3)
_QUALITY = (25, 14, 8, 5, 3)
_GAINS = (1.25, 0.80, 0.45)
_CAST = (0.35, 0.65, 1.0, 1.3, 1.6)
_COLOUR_LEFT = (0.60, 0.40, 0.20, 0.10, 0.0)
_STRETCH = (1.6, 2.8, 4.0, 5.2, 6.4)
_ELASTIC_CELLS = 6


def pixelate(x: Tensor, _seeds: Tensor, severity: int) -> Tensor:
    """Replace blocks of pixels by their mean."""
    # In a tiny image a block in proportion would be a pixel, and nothing would change.
    block = max(_BLOCK[severity - 1] * scale_of(x), 1 + 0.15 * severity)
    sums, places = x, []
    for dim in (2, 3):
        side = x.shape[dim]
        cells = max(1, round(side / block))
        place = torch.arange(side, device=x.device) * cells // side
        shape = [*sums.shape]
        shape[dim] = cells
        sums = sums.new_zeros(shape).index_add_(dim, place, sums)
        places.append((place, torch.bincount(place, minlength=cells).int()))
    area = places[0][1][:, None] * places[1][1][None, :]
    means = (sums + area // 2) // area
    return means.index_select(2, places[0][0]).index_select(3, places[1][0])


def jpeg(x: Tensor, _seeds: Tensor, severity: int) -> Tensor:
    """Code as JPEG of low quality, and decode (on the CPU, image by image)."""
    from torchvision.transforms.v2.functional import jpeg as coded

    images: Tensor = coded(x.to("cpu", torch.uint8), quality=_QUALITY[severity - 1])
    return images.to(x.device, torch.int32)


def colour(x: Tensor, _seeds: Tensor, severity: int) -> Tensor:
    """Weigh red, green and blue as in warm light."""
    part = _CAST[severity - 1]
    gains = [round(4096 * (1 + part * (gain - 1))) for gain in _GAINS]
    return rounded(x * torch.tensor(gains, dtype=torch.int32, device=x.device)[:, None, None], 12)


def saturate(x: Tensor, _seeds: Tensor, severity: int) -> Tensor:
    """Let the colours fade to grey."""
    left = round(_COLOUR_LEFT[severity - 1] * 256)
    weights = torch.tensor([77, 150, 29], dtype=torch.int32, device=x.device)[:, None, None]
    grey = rounded((x * weights).sum(1, keepdim=True), 8).int()
    return rounded(x * left + grey * (256 - left), 8)


def elastic(x: Tensor, seeds: Tensor, severity: int) -> Tensor:
    """Stretch smoothly at random."""
    height, width = x.shape[-2:]
    reach = round(_STRETCH[severity - 1] * scale_of(x) * STEP)
    rows, columns = (
        (2 * field(seeds, stream, _ELASTIC_CELLS, height, width)[:, 0].long() - 255) * reach // 255
        for stream in (0, 1)
    )
    rows = rows + torch.arange(height, device=x.device)[:, None] * STEP
    columns = columns + torch.arange(width, device=x.device)[None, :] * STEP
    return rounded(bilinear(x, rows, columns), 16)
