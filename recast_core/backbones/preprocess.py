"""From stored images to what a backbone takes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from recast_core.errors import RecastError

Triple = tuple[float, float, float]
IMAGENET_MEAN: Triple = (0.485, 0.456, 0.406)
IMAGENET_STD: Triple = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Preprocess:
    """Scale to ``[0, 1]``, resize, replicate grey, normalise; nothing random.

    Attributes:
        size: height and width of the result in pixels.
        mean: per channel, of images in ``[0, 1]``.
        std: per channel.
    """

    size: int
    mean: Triple = IMAGENET_MEAN
    std: Triple = IMAGENET_STD

    def __call__(self, images: NDArray[Any] | Tensor) -> Tensor:
        """Make a batch ready.

        The shorter side is resized to ``size`` (bilinear, antialiased) and the centre is cut out;
        images that already have the size are not resampled.

        Args:
            images: uint8 ``[N, H, W]`` or ``[N, H, W, C]`` with C 1 or 3.

        Returns:
            float32 ``[N, 3, size, size]``, contiguous, on the device of ``images``.

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
        scaled = self._resize(batch.permute(0, 3, 1, 2).float().div(255))
        mean, std = (
            torch.tensor(values, device=batch.device).view(1, 3, 1, 1)
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


def triple(values: Sequence[float]) -> Triple:
    """Three floats, one a channel; raises ValueError for another number of them."""
    red, green, blue = (float(value) for value in values)
    return red, green, blue
