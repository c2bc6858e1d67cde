"""Reading images at other places, in fixed-point integers; beyond the border they are mirrored.

Places are in steps of 1/256 pixel. Every function takes and returns int32 [N, C, H, W].
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

STEP = 256
"""Steps of a pixel."""
ONE = 1 << 12
"""What 1 is in the matrices of `affine`."""
MIN_SCALE = 0.5


def scale_of(images: Tensor) -> float:
    """Return what a length in pixels of a 32-pixel image is multiplied by for these images.

    Smaller images than 16 pixels are treated as if they had 16: a blur must reach a neighbour.
    """
    return max(max(images.shape[-2:]) / 32, MIN_SCALE)


def rounded(total: Tensor, bits: int) -> Tensor:
    """Divide by 2**bits and round, halves up."""
    return (total + (1 << (bits - 1))) >> bits


def mirror(place: Tensor, side: int) -> Tensor:
    """Map whole places outside 0 .. side - 1 to the pixel that a mirror at the edge shows."""
    place = torch.remainder(place, 2 * side)
    return torch.minimum(place, 2 * side - 1 - place)


def bilinear(images: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Return the images at other places, times 65536.

    Args:
        images: int32 [N, C, H, W], 0 to 255.
        rows: int64 [N, H, W], in steps of a pixel.
        columns: like `rows`.
    """
    height, width = images.shape[-2:]
    top, left = rows >> 8, columns >> 8
    down, right = (rows & 255).to(torch.int32)[:, None], (columns & 255).to(torch.int32)[:, None]
    above, below = mirror(top, height) * width, mirror(top + 1, height) * width
    near, far = mirror(left, width), mirror(left + 1, width)
    upper = _at(images, above + near) * (STEP - right) + _at(images, above + far) * right
    lower = _at(images, below + near) * (STEP - right) + _at(images, below + far) * right
    return upper * (STEP - down) + lower * down


def affine(images: Tensor, matrix: Sequence[Tensor | int]) -> Tensor:
    """Return the images, times 65536, read through a linear map about their centre.

    Args:
        images: int32 [N, C, H, W].
        matrix: the six entries a, b, s, d, e, t: a pixel (u, v) right of and below the centre shows
            what is at (a·u + b·v + s, d·u + e·v + t). Whole numbers (int64 [N] where images
            differ), 1 is `ONE`; s and t are in half pixels.
    """
    count, _, height, width = images.shape
    device = images.device
    across = torch.arange(1 - width, width, 2, device=device)[None, None, :]
    down = torch.arange(1 - height, height, 2, device=device)[None, :, None]
    a, b, s, d, e, t = (
        torch.as_tensor(entry, dtype=torch.int64, device=device).expand(count)[:, None, None]
        for entry in matrix
    )
    # From half pixels times ONE to steps of a pixel: / 2, * 256, / 4096.
    columns = rounded(a * across + b * down + s, 5) + (width - 1) * STEP // 2
    rows = rounded(d * across + e * down + t, 5) + (height - 1) * STEP // 2
    return bilinear(images, rows, columns)


def along(images: Tensor, angle: Tensor, half: float) -> list[Tensor]:
    """Return what each pixel meets along a line through it, one image per pixel of its length.

    Args:
        images: int32 [N, C, H, W].
        angle: int64 [N], 0 .. 63: 64ths of half a turn from the horizontal.
        half: half the line's length in pixels.
    """
    height, width = images.shape[-2:]
    reach = max(1, math.ceil(half))
    down = torch.arange(height, device=images.device)[None, :, None]
    across = torch.arange(width, device=images.device)[None, None, :]
    met = []
    for place in range(-reach, reach + 1):
        far = place * half / reach
        moves = torch.tensor(
            [[round(far * f(math.pi * k / 64)) for k in range(64)] for f in (math.sin, math.cos)],
            device=images.device,
        )[:, angle]
        rows = mirror(down + moves[0][:, None, None], height)
        columns = mirror(across + moves[1][:, None, None], width)
        met.append(_at(images, rows * width + columns))
    return met


def _at(images: Tensor, places: Tensor) -> Tensor:
    """Gather int64 places [N, H, W] (row · width + column) of int32 images [N, C, H, W]."""
    count, channels = images.shape[:2]
    flat = places.reshape(count, 1, -1).expand(-1, channels, -1)
    return images.reshape(count, channels, -1).gather(2, flat).reshape(images.shape)
