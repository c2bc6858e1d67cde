"""From stored images to what a backbone takes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from recast_core.errors import RecastError

Channels = tuple[float, ...]
IMAGENET_MEAN: Channels = (0.485, 0.456, 0.406)
IMAGENET_STD: Channels = (0.229, 0.224, 0.225)
# Their means: what timm takes for grey images.
GREY_MEAN: Channels = (0.449,)
GREY_STD: Channels = (0.226,)
LARGEST = 4096
"""Pixels that a side of an image may have."""
# Rec. 601, as Pillow makes an image grey.
_LUMA = (0.299, 0.587, 0.114)


@dataclass(frozen=True)
class Preprocess:
    """Scale to ``[0, 1]``, resize, replicate grey or make it, normalise; nothing random.

    Attributes:
        size: height and width of the result in pixels.
        mean: of images in ``[0, 1]``, for each of 3 channels, or of 1 for grey.
        std: likewise.
    """

    size: int
    mean: Channels = IMAGENET_MEAN
    std: Channels = IMAGENET_STD

    def __post_init__(self) -> None:
        if len(self.mean) != len(self.std) or len(self.mean) not in (1, 3):
            raise ValueError(
                f"{len(self.mean)} means and {len(self.std)} deviations: give 1 or 3 of each"
            )
        if not 1 <= self.size <= LARGEST:
            raise ValueError(f"images of {self.size} pixels: give 1 to {LARGEST}")
        numbers = (*self.mean, *self.std)
        if not all(-1 <= number <= 1 for number in numbers) or not all(n > 0 for n in self.std):
            raise ValueError(
                "a mean or deviation that pixels from 0 to 1 cannot have: divide those of 0 to 255 "
                "by 255"
            )

    @property
    def channels(self) -> int:
        """Channels of the result: 3, or 1 for grey."""
        return len(self.mean)

    def example(self, rows: int) -> Tensor:
        """Ramps ``[rows, channels, size, size]`` in the place of images, for a trial run."""
        shape = (rows, self.channels, self.size, self.size)
        return torch.linspace(-1, 1, shape[0] * shape[1] * shape[2] * shape[3]).view(shape)

    def __call__(self, images: NDArray[Any] | Tensor) -> Tensor:
        """Make a batch ready.

        The shorter side is resized to ``size`` (bilinear, antialiased) and the centre is cut out;
        images that already have the size are not resampled.

        Args:
            images: uint8 ``[N, H, W]`` or ``[N, H, W, C]`` with C 1 or 3.

        Returns:
            float32 ``[N, channels, size, size]``, contiguous, on the device of ``images``.

        Raises:
            RecastError: another dtype or shape.
        """
        batch = torch.from_numpy(images) if isinstance(images, np.ndarray) else images
        if batch.dtype != torch.uint8:
            raise RecastError(f"images are {batch.dtype}: give uint8 values from 0 to 255")
        if batch.dim() == 3:
            batch = batch.unsqueeze(-1)
        if batch.dim() != 4 or batch.shape[-1] not in (1, 3) or 0 in batch.shape[1:3]:
            raise RecastError(
                f"images of shape {list(images.shape)}: give [N, H, W] or [N, H, W, C] "
                "with 1 or 3 channels"
            )
        if self.channels == 1 and batch.shape[-1] == 3:
            luma = batch.float() @ torch.tensor(_LUMA, device=batch.device)
            batch = luma.round().to(torch.uint8).unsqueeze(-1)
        scaled = self._resize(batch.permute(0, 3, 1, 2).float().div(255))
        mean, std = (
            torch.tensor(values, device=batch.device).view(1, -1, 1, 1)
            for values in (self.mean, self.std)
        )
        return ((scaled - mean) / std).contiguous()

    def _resize(self, images: Tensor) -> Tensor:
        height, width = images.shape[-2:]
        shorter = min(height, width)
        if shorter != self.size and images.shape[0]:
            shape = [max(self.size, round(side * self.size / shorter)) for side in (height, width)]
            images = F.interpolate(
                images, shape, mode="bilinear", align_corners=False, antialias=True
            )
        elif shorter != self.size:
            return images.new_empty(0, images.shape[1], self.size, self.size)
        top = (images.shape[-2] - self.size) // 2
        left = (images.shape[-1] - self.size) // 2
        return images[..., top : top + self.size, left : left + self.size]
