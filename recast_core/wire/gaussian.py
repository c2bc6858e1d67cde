"""The transform of local differential privacy: a bounded update with Gaussian noise, then rounding.

Rounding comes after the noise and sees nothing else, so that it cannot widen what the noise hides.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from recast_core.errors import RecastError
from recast_core.privacy.clipping import bounded
from recast_core.privacy.noise import secure_noise
from recast_core.wire.codec import CodecError, Encoded, Vector
from recast_core.wire.transforms import Occasion, Rest, Transform, register_transform

NAME = "gaussian"


def gaussian(length: float, deviation: float) -> str:
    """The transform as ``transforms`` names it.

    Args:
        length: that offsets may have in L2.
        deviation: standard deviation of the noise in each number.
    """
    return f"{NAME}:{length:.9g}:{deviation:.9g}"


@lru_cache(maxsize=64)
def has_noise(transforms: str) -> bool:
    """Whether a chain adds noise."""
    return any(word.startswith(f"{NAME}:") for word in transforms.replace(",", " ").split())


def _make(argument: str) -> Transform:
    """From ``LENGTH:DEVIATION``."""
    try:
        length, deviation = (float(word) for word in argument.split(":"))
    except ValueError:
        length = deviation = 0.0
    if not (0 < length < float("inf") and 0 < deviation < float("inf")):
        raise RecastError(f"no noise {argument!r}: give a length and a deviation, as 0.1:2.5")

    def transform(offsets: Vector, occasion: Occasion, rest: Rest) -> Encoded:
        if not np.isfinite(offsets).all():
            raise CodecError("the vector holds NaN or infinity")
        noise = (occasion.noise or secure_noise())(len(offsets))
        return rest((bounded(offsets, length) + deviation * noise).astype(np.float32))

    return transform


register_transform(NAME, _make)
