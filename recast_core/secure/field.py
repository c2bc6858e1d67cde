"""Integers modulo a prime of two, three or four bytes, many at once."""

from __future__ import annotations

import secrets
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.uint64]

# The largest prime below 2 to the power of 8, for each number of bytes.
_PRIMES = {2: 65_521, 3: 16_777_213, 4: 4_294_967_291}
WIDTHS = tuple(_PRIMES)


@dataclass(frozen=True)
class Field:
    """The integers modulo a prime.

    Attributes:
        width: bytes of one number on the wire, one of ``WIDTHS``.
    """

    width: int

    @property
    def prime(self) -> int:
        """The modulus. Products of two numbers below it fit in 64 bits."""
        return _PRIMES[self.width]

    def wrap(self, integers: NDArray[np.int64]) -> Numbers:
        """Signed integers as numbers of the field."""
        return np.mod(integers, self.prime).astype(np.uint64)

    def centred(self, numbers: Numbers) -> NDArray[np.int64]:
        """The integer nearest to 0 that each number stands for."""
        signed = numbers.astype(np.int64)
        return np.where(signed > self.prime // 2, signed - self.prime, signed)

    def random(self, shape: tuple[int, ...]) -> Numbers:
        """Uniform numbers, from the operating system's generator."""
        count = int(np.prod(shape))
        found = np.empty(0, np.uint64)
        while len(found) < count:
            missing = count - len(found)
            drawn = self._integers(secrets.token_bytes((missing + 8) * self.width))
            found = np.concatenate([found, drawn[drawn < self.prime]])
        return found[:count].reshape(shape)

    def pack(self, numbers: Numbers) -> bytes:
        """``[n]`` as ``n * width`` bytes, little-endian."""
        whole = np.ascontiguousarray(numbers, "<u8").view(np.uint8).reshape(-1, 8)
        return whole[:, : self.width].tobytes()

    def unpack(self, content: bytes, count: int) -> Numbers:
        """The numbers ``[count]`` that ``pack`` wrote.

        Raises:
            ValueError: another length, or a number that is none of the field.
        """
        if len(content) != count * self.width:
            raise ValueError(
                f"{len(content)} bytes for {count} numbers: expected {count * self.width}"
            )
        found = self._integers(content)
        if (found >= self.prime).any():
            raise ValueError("a number is not below the prime")
        return found

    def _integers(self, content: bytes) -> Numbers:
        whole = np.zeros((len(content) // self.width, 8), np.uint8)
        whole[:, : self.width] = np.frombuffer(content, np.uint8).reshape(-1, self.width)
        return whole.view("<u8").reshape(-1).astype(np.uint64)
