"""Shifts of a task's images: each makes a new task out of the same labels.

All work on uint8 arrays [N, H, W] or [N, H, W, 3] and return new ones of the same dtype. The shape
stays the same too, but for `rotated` on images that are not square, where H and W change places.
Five have one strength and are made here; those with a severity are made in `recast_core.shifts`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt

from client.data.arrays import Images
from recast_core.extras import needed
from recast_core.shifts.table import Shift, parse_shift

NOISE_SIGMA = 25.5
"""Standard deviation of `noisy` in grey levels: a tenth of the range."""

Part = Literal["train", "test"]
_Seeds = npt.NDArray[np.int64]
_CHUNK = 1024


def apply_transforms(
    images: Images,
    names: Sequence[str],
    *,
    indices: npt.NDArray[np.int64],
    part: Part,
    seed: int,
) -> Images:
    """Apply transforms one after the other.

    Args:
        images: uint8 [N, H, W] or [N, H, W, 3].
        names: keys of `TRANSFORMS`, or shifts with their severity (``fog:3``).
        indices: int64 [N], each image's place in its source. What is random hangs on it alone, so
            that an image looks the same whichever client, part or class range it is seen in.
        part: which of the two index spaces `indices` refers to.
        seed: of what is random.

    Returns:
        uint8, N images; `images` itself if `names` is empty.

    Raises:
        RecastError: no such shift or severity, or a shift of colours of grey images.
    """
    part_id = ("train", "test").index(part)
    keys = np.stack(np.broadcast_arrays(seed, part_id, indices), axis=1)
    for place, name in enumerate(names):
        if name in TRANSFORMS:
            images = TRANSFORMS[name](images, keys)
        else:
            images = _shifted(images, parse_shift(name), keys, names[:place])
    return images


def _shifted(images: Images, shift: Shift, keys: _Seeds, before: Sequence[str]) -> Images:
    """Apply a shift; one given for the second time draws other numbers than the first time."""
    import torch

    from recast_core.shifts.apply import shift as make
    from recast_core.shifts.draws import seeds_of

    turn = sum(name.partition(":")[0] == shift.name for name in before)
    seed, part, index = (torch.from_numpy(column.copy()) for column in keys.T)
    seeds = seeds_of(index, seed, part, turn)
    grey = images.ndim == 3
    planes = torch.from_numpy(images)
    planes = planes[:, None] if grey else planes.permute(0, 3, 1, 2)
    made = make(planes, shift.name, shift.severity, seeds)
    return (made[:, 0] if grey else made.permute(0, 2, 3, 1).contiguous()).numpy()


def _inverted(images: Images, _keys: _Seeds) -> Images:
    return 255 - images


def _rotated(images: Images, _keys: _Seeds) -> Images:
    return np.ascontiguousarray(np.rot90(images, axes=(1, 2)))


def _flipped(images: Images, _keys: _Seeds) -> Images:
    return np.ascontiguousarray(images[:, :, ::-1])


def _noisy(images: Images, keys: _Seeds) -> Images:
    out = np.empty_like(images)
    for row, image, key in zip(out, images, keys.tolist(), strict=True):
        noise = np.random.default_rng(key).standard_normal(image.shape, dtype=np.float32)
        row[...] = np.clip(np.rint(image + NOISE_SIGMA * noise), 0, 255)
    return out


def _blurred(images: Images, _keys: _Seeds) -> Images:
    """Gaussian blur, sigma 1 pixel up to 32 pixels of height and a 32nd of the height above."""
    with needed("+blurred", "scipy", "sim"):
        from scipy.ndimage import gaussian_filter

    sigma = max(1.0, images.shape[1] / 32)
    sigmas = (0.0, sigma, sigma, 0.0)[: images.ndim]
    out = np.empty_like(images)
    for start in range(0, len(images), _CHUNK):
        chunk = images[start : start + _CHUNK]
        out[start : start + _CHUNK] = np.rint(gaussian_filter(chunk, sigmas, output=np.float32))
    return out


TRANSFORMS: Mapping[str, Callable[[Images, _Seeds], Images]] = {
    "inverted": _inverted,
    "rotated": _rotated,
    "noisy": _noisy,
    "blurred": _blurred,
    "flipped": _flipped,
}
"""The transforms of one strength (`rotated`: 90° counter-clockwise; `flipped`: left to right)."""
