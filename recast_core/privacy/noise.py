"""Gaussian noise: from the system's randomness, or from a seed where a run is to be repeated.

Each number is the sum of four divided by two, so that the gaps between the floating point numbers
that one draw can give tell nothing of what was added to it (Mironov, CCS 2012; Holohan and
Braghin, 2021).
"""

from __future__ import annotations

import os
from collections.abc import Callable

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import ChaCha20
from numpy.typing import NDArray

from recast_core.extras import needed

Double = NDArray[np.float64]
# So many independent standard Gaussian numbers: float64 ``[count]``.
Noise = Callable[[int], Double]
# So many independent numbers between 0 and 1, of 53 bits and never one of the two.
Uniform = Callable[[int], Double]

_DRAWS = 4
# Keeps these streams apart from others that hang on the same seeds, and from each other.
_PURPOSE, _EVEN = 0x6470, 0x6471


def _between(words: NDArray[np.uint64]) -> Double:
    return ((words >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53


def secure_uniform() -> Uniform:
    """Numbers that nobody can repeat: a ChaCha20 stream under a key of the operating system."""
    # The key is used once, so that the nonce may be zero.
    stream = Cipher(ChaCha20(os.urandom(32), bytes(16)), mode=None).encryptor()

    def uniform(count: int) -> Double:
        return _between(np.frombuffer(stream.update(bytes(8 * count)), "<u8"))

    return uniform


def seeded_uniform(*seeds: int) -> Uniform:
    """Numbers that ``seeds`` alone decide: for simulations."""
    generator = np.random.Philox(np.random.SeedSequence([_EVEN, *seeds]))
    return lambda count: _between(generator.random_raw(count))


def secure_noise() -> Noise:
    """Noise that nobody can repeat; see ``secure_uniform``."""
    uniform = secure_uniform()
    with needed("noise", "scipy", "privacy"):
        from scipy.special import ndtri

    def noise(count: int) -> Double:
        drawn = np.asarray(ndtri(uniform(_DRAWS * count)), np.float64)
        return np.asarray(drawn.reshape(_DRAWS, count).sum(0) / 2)

    return noise


def seeded_noise(*seeds: int) -> Noise:
    """Noise that ``seeds`` alone decide: for simulations, where it protects nobody."""
    made: list[np.random.Generator] = []

    def noise(count: int) -> Double:
        if not made:  # most of those who could ask for noise want none
            sequence = np.random.SeedSequence([_PURPOSE, *seeds])
            made.append(np.random.Generator(np.random.Philox(sequence)))
        (generator,) = made
        return np.asarray(generator.standard_normal((_DRAWS, count)).sum(0) / 2)

    return noise
