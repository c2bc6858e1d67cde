"""Templates as small integers: what a shift bank's file and message hold instead of floats."""

from __future__ import annotations

import math
import weakref
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from recast_core.errors import RecastError

Integers = NDArray[np.int16]

BITS = range(2, 9)
_LARGEST_TENSOR = 1 << 30
_LARGEST_RANK = 1 << 14
# No product of an integer and a scale in these bounds is subnormal or infinite in float32, where
# machines differ.
_SCALES = (1e-30, 1e20)


@dataclass(frozen=True, eq=False)
class Packed:
    """The templates ``[n, *shape]`` of one tensor, as integers of a few bits.

    Directly: every entry is an integer times the scale of its template. As factors: the templates
    are unfolded to one matrix, ``[n * out, rest]`` where ``out <= rest`` and ``[out, n * rest]``
    otherwise, which is ``scale * sum_r m_r u_r v_r^T`` with 16-bit ``m_r``. All sums are of whole
    numbers below 2^53 and taken in float64, so that no order of summation changes a bit; one
    multiplication by the scale and one rounding to float32 follow.

    Attributes:
        size: ``(n, *shape)``.
        bits: of an integer, 2 to 8; it lies within plus and minus ``2^(bits - 1) - 1``.
        rank: how many products of factors; 0 for direct integers.
        content: ``m`` as little-endian uint16, then the integers (of ``u`` row by row, then of
            ``v``), each with ``2^(bits - 1) - 1`` added, most significant bit first.
        scales: float32 ``[n]``, or ``[1]`` for factors.

    Raises:
        RecastError: sizes, content and scales do not fit together, or are beyond all use.
    """

    size: tuple[int, ...]
    bits: int
    rank: int
    content: bytes
    scales: Tensor
    _live: list[weakref.ref[Tensor]] = field(default_factory=list, repr=False)

    def __post_init__(self) -> None:
        _check(self)

    @classmethod
    def direct(cls, integers: Integers, scales: Tensor, bits: int) -> Packed:
        """Of integers ``[n, *shape]`` and scales ``[n]``."""
        return cls(integers.shape, bits, 0, _to_bits(integers.reshape(-1), bits), scales)

    @classmethod
    def factors(
        cls,
        size: tuple[int, ...],
        bits: int,
        multipliers: NDArray[np.uint16],
        left: Integers,
        right: Integers,
        scale: float,
    ) -> Packed:
        """Of ``m`` ``[r]``, ``u`` ``[rows, r]`` and ``v`` ``[columns, r]`` of the unfolding."""
        integers = np.concatenate([left.reshape(-1), right.reshape(-1)])
        content = multipliers.astype("<u2").tobytes() + _to_bits(integers, bits)
        return cls(size, bits, len(multipliers), content, torch.tensor([scale]))

    def templates(self) -> Tensor:
        """The templates: float32 ``[n, *shape]``, the same bits on every machine.

        Kept only as long as someone else holds them: what is small on the wire is large here.
        """
        found = self._live[0]() if self._live else None
        if found is None:
            found = self._unpacked()
            self._live[:] = [weakref.ref(found)]
        return found

    def _unpacked(self) -> Tensor:
        if not self.rank:
            whole = _from_bits(self.content, math.prod(self.size), self.bits)
            wide = torch.from_numpy(whole.astype(np.float64)).view(self.size[0], -1)
            return (wide * self.scales.double().unsqueeze(1)).float().view(self.size)
        rows, columns = unfolded(self.size)
        multipliers = np.frombuffer(self.content, "<u2", self.rank).astype(np.float64)
        integers = _from_bits(
            self.content[2 * self.rank :], (rows + columns) * self.rank, self.bits
        ).astype(np.float64)
        left, right = np.split(integers, [rows * self.rank])
        product = torch.from_numpy(left.reshape(rows, self.rank) * multipliers) @ (
            torch.from_numpy(right.reshape(columns, self.rank)).T
        )
        return refold(product.mul_(float(self.scales[0])).float(), self.size)


def packed_bytes(size: tuple[int, ...], bits: int, rank: int) -> int:
    """The length of the content."""
    count = sum(unfolded(size)) * rank if rank else math.prod(size)
    return 2 * rank + -(-count * bits // 8)


def unfolded(size: tuple[int, ...]) -> tuple[int, int]:
    """Rows and columns of the matrix that templates ``(n, out, ...)`` are unfolded to."""
    count, out, rest = size[0], size[1], math.prod(size[2:])
    return (count * out, rest) if out <= rest else (out, count * rest)


def unfold(stack: Tensor) -> Tensor:
    """Templates ``[n, out, ...]`` as that matrix."""
    flat = stack.flatten(2)
    if flat.shape[1] <= flat.shape[2]:
        return flat.flatten(0, 1)
    return flat.transpose(0, 1).flatten(1)


def refold(matrix: Tensor, size: tuple[int, ...]) -> Tensor:
    """The templates ``size`` of that matrix, contiguous."""
    count, out, rest = size[0], size[1], math.prod(size[2:])
    if out <= rest:
        return matrix.reshape(size)
    return matrix.view(out, count, rest).transpose(0, 1).reshape(size)


def _to_bits(integers: Integers, bits: int) -> bytes:
    """``[N]`` as ``ceil(N * bits / 8)`` bytes."""
    shifted = (integers + (2 ** (bits - 1) - 1)).astype(np.uint8)
    return np.packbits(np.unpackbits(shifted[:, None], axis=1)[:, 8 - bits :]).tobytes()


def _from_bits(content: bytes, count: int, bits: int) -> Integers:
    """``[count]`` of what ``_to_bits`` made."""
    flat = np.unpackbits(np.frombuffer(content, np.uint8), count=count * bits)
    places = (1 << np.arange(bits - 1, -1, -1)).astype(np.int16)
    whole: Integers = flat.reshape(count, bits) @ places - np.int16(2 ** (bits - 1) - 1)
    return whole


def _check(packed: Packed) -> None:
    size, bits, rank = packed.size, packed.bits, packed.rank
    remedy = "make the bank again, or delete it so that it is fetched again"
    if len(size) < 2 or min(size) < 1 or math.prod(size) > _LARGEST_TENSOR:
        raise RecastError(f"packed templates of size {list(size)[:8]} are beyond all use: {remedy}")
    if bits not in BITS:
        raise RecastError(f"templates of {bits} bits: give {BITS[0]} to {BITS[-1]}")
    if rank and (len(size) < 3 or not 0 < rank <= min(*unfolded(size), _LARGEST_RANK)):
        raise RecastError(f"packed templates {list(size)} have no rank {rank}: {remedy}")
    if len(packed.content) != packed_bytes(size, bits, rank):
        raise RecastError(
            f"packed templates hold {len(packed.content)} bytes, their header says "
            f"{packed_bytes(size, bits, rank)}: {remedy}"
        )
    scales = packed.scales
    if scales.dtype != torch.float32 or scales.shape != (1 if rank else size[0],):
        raise RecastError(f"packed templates have scales of another number or kind: {remedy}")
    low, high = _SCALES
    if not bool(((scales == 0) | ((scales >= low) & (scales <= high))).all()):
        raise RecastError(f"packed templates have a scale that is not finite or usable: {remedy}")
