"""Random templates from a seed: a bank that eight bytes describe."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from recast_core.sources.base import Source


@dataclass(frozen=True)
class Seeded(Source):
    """The source ``seeded``: random signs, each template as long as the group's layers are.

    Template ``i`` is ``(s / sqrt(P)) z`` with P independent signs ``z`` and ``s`` the root mean
    square norm of the group's layers. Signs, because they are the bits of Philox themselves: the
    same on every machine and with every release, which no library promises for normal numbers.
    In high dimension they are as good as orthogonal (Achlioptas 2003). They do not span the
    layers, so the bank has the residual form and starts at ``c0 = 0``.
    """

    residual: ClassVar[bool] = True
    derivable: ClassVar[bool] = True

    def __call__(
        self, weights: Tensor, templates: int | None, random: np.random.Philox
    ) -> tuple[Tensor, Tensor]:
        """See ``Source``."""
        layers, size = len(weights), weights[0].numel()
        count = layers if templates is None else templates
        words = random.random_raw(-(-count * size // 64)).astype("<u8")
        bits = np.unpackbits(words.view(np.uint8), count=count * size, bitorder="little")
        signs = torch.from_numpy(bits).view(count, *weights.shape[1:]).float().mul_(2).sub_(1)
        entry = _rounded(math.sqrt(_mean_square(weights)))
        return signs.mul_(entry), torch.zeros(layers, count)


def _mean_square(weights: Tensor) -> float:
    return float(weights.double().square().mean())


def _rounded(value: float) -> float:
    """``value`` to 12 bits: sums in another order differ in the last of 53, which must not show."""
    mantissa, exponent = math.frexp(value)
    return math.ldexp(round(mantissa * 4096), exponent - 12)
