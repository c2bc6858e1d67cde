"""Discrete Gaussian noise, which integers can be hidden with before they are added.

Sums of it are discrete Gaussian too, but for ``exp(-pi**2 s**2)`` of each number where each term
has the standard deviation ``s`` (Kairouz, Liu and Steinke, ICML 2021): nothing at ``COARSEST``.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from recast_core.privacy.noise import Uniform

# A smaller standard deviation of one term is refused.
COARSEST = 2.0


def discrete_gaussian(uniform: Uniform, deviation: float, count: int) -> NDArray[np.int64]:
    """Integers ``[count]``, each with a probability in proportion to ``exp(-x**2 / 2 s**2)``.

    By rejection from a two-sided geometric distribution (Canonne, Kamath and Steinke, NeurIPS
    2020), with probabilities of 53 bits: no event is more than 2 to the power of -50 more or less
    probable than it should be.

    Args:
        uniform: where the randomness is from.
        deviation: ``s``, more than 0.
        count: of numbers.
    """
    scale, variance = math.floor(deviation) + 1, deviation**2
    found = np.empty(0, np.int64)
    while len(found) < count:
        drawn, sign, lot = uniform(3 * (count - len(found))).reshape(3, -1)
        far = np.floor(-scale * np.log(drawn))
        kept = lot < np.exp(-((far - variance / scale) ** 2) / (2 * variance))
        kept &= (far > 0) | (sign < 0.5)  # of two zeros one
        signed = np.where(sign < 0.5, far, -far)[kept]
        found = np.concatenate([found, signed.astype(np.int64)])
    return found
