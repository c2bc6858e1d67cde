"""A shift of a batch of images, the same bits for an image whatever the batch and the device.

Everything is done in whole numbers, which sum to the same in any order. torchvision's transforms
do not fit: their generators run over the batch, and their convolutions take other code for one
image than for many, so that an image alone would not be the image of the batch. What is the same
for every image and has no noise comes from there (`jpeg`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from recast_core.errors import RecastError
from recast_core.shifts import blur, digital, geometry, light, noise, weather
from recast_core.shifts.draws import keyed
from recast_core.shifts.table import NEED_COLOUR, Shift

_MADE: Mapping[str, Callable[[Tensor, Tensor, int], Tensor]] = {
    "gauss": noise.gauss,
    "shot": noise.shot,
    "impulse": noise.impulse,
    "speckle": noise.speckle,
    "gblur": blur.gblur,
    "defocus": blur.defocus,
    "motion": blur.motion,
    "zoom": blur.zoom,
    "lowlight": light.lowlight,
    "bright": light.bright,
    "contrast": light.contrast,
    "pixelate": digital.pixelate,
    "jpeg": digital.jpeg,
    "colour": digital.colour,
    "saturate": digital.saturate,
    "elastic": digital.elastic,
    "rotate": geometry.rotate,
    "far": geometry.far,
    "near": geometry.near,
    "shear": geometry.shear,
    "fog": weather.fog,
    "snow": weather.snow,
    "rain": weather.rain,
}
_CHUNK = {"cpu": 1 << 20, "cuda": 1 << 25}
"""Values that are worked on at a time: what fits a CPU's caches, or a part of a GPU's memory."""


def shift(images: Tensor, name: str, severity: int, seeds: Tensor) -> Tensor:
    """Return the images under a shift.

    Args:
        images: uint8 [N, C, H, W] on any device, C 1 (grey) or 3 (RGB).
        name: one of `table.SHIFTS`.
        severity: 1 to 5.
        seeds: int64 [N] on the device of the images, one per image. An image's pixels, its seed,
            name and severity decide its result alone; random places do not change with severity.

    Returns:
        uint8 [N, C, H, W], a new tensor.

    Raises:
        RecastError: no such shift or severity, or one that needs colour, for grey images.
        ValueError: another dtype or shape.
    """
    Shift(name, severity)
    if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] not in (1, 3):
        raise ValueError(f"images of {images.dtype} {list(images.shape)}: uint8 [N, 1 or 3, H, W]")
    if seeds.dtype != torch.int64 or seeds.shape != images.shape[:1]:
        raise ValueError(f"seeds of {seeds.dtype} {list(seeds.shape)}: int64 [{len(images)}]")
    if name in NEED_COLOUR and images.shape[1] == 1:
        raise RecastError(f"shift {name} changes nothing in grey images: choose another shift")
    seeds = keyed(seeds, name)
    out = torch.empty_like(images)
    step = max(1, _CHUNK.get(images.device.type, 1 << 20) // max(1, images[:1].numel()))
    for start in range(0, len(images), step):
        rows = slice(start, start + step)
        made = _MADE[name](images[rows].to(torch.int32), seeds[rows], severity)
        out[rows] = made.clamp(0, 255).to(torch.uint8)
    return out
