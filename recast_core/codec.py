"""Coefficients as bytes: offsets in a few bits each, with one scale.

Widths: 32 and 16 are IEEE floats (no scale); 8 to 2 are signed integers ``q`` with
``offset = q * scale``; 1 is the sign, with ``scale`` the mean magnitude. Integers are packed most
significant bit first, the last byte padded with zero bits, so that a vector has exactly one length
and one encoding.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recast_core.errors import RecastError

Vector = NDArray[np.float32]
WIDTHS = (32, 16, 8, 7, 6, 5, 4, 3, 2, 1)


@dataclass(frozen=True)
class Encoded:
    """A vector on the wire: its packed numbers and their scale (0 where none is needed)."""

    data: bytes
    scale: float


class CodecError(ValueError):
    """Bytes that are not the encoding of a vector; the message says why."""


def check_bits(bits: int) -> int:
    """``bits`` if it is a width of this codec; raises RecastError otherwise."""
    if bits not in WIDTHS:
        raise RecastError(f"no codec of {bits} bits: choose one of {', '.join(map(str, WIDTHS))}")
    return bits


def encoded_length(count: int, bits: int) -> int:
    """The bytes that ``count`` numbers of ``bits`` bits take."""
    return (count * bits + 7) // 8


def encode(offsets: Vector, bits: int) -> Encoded:
    """Encode float32 ``[D]``, rounding to nearest.

    Raises:
        RecastError: an unknown width.
        CodecError: NaN or infinity, or an offset beyond what 16 bits hold.
    """
    check_bits(bits)
    offsets = np.ascontiguousarray(offsets, np.float32)
    if not np.isfinite(offsets).all():
        raise CodecError("the vector holds NaN or infinity")
    if bits >= 16:
        with np.errstate(over="ignore"):
            floats = offsets.astype("<f2" if bits == 16 else "<f4")
        if not np.isfinite(floats).all():
            raise CodecError("an offset is too large for 16 bits: send 32")
        return Encoded(floats.tobytes(), 0.0)
    peak = float(np.abs(offsets).max(initial=0.0))
    if bits == 1:
        scale = float(np.float32(np.abs(offsets).mean(dtype=np.float64))) if offsets.size else 0.0
        levels = (offsets >= 0).astype(np.uint8)
    else:
        limit = (1 << (bits - 1)) - 1
        scale = float(np.float32(peak / limit))
        steps = offsets / np.float32(scale) if scale > 0 else np.zeros_like(offsets)
        levels = (np.rint(steps).clip(-limit, limit).astype(np.int16) + limit).astype(np.uint8)
    if scale == 0.0:
        # Nothing to say: the canonical form of the zero vector has zero levels.
        levels = np.zeros(offsets.size, np.uint8)
    return Encoded(_pack(levels, bits), scale)


def decode(encoded: Encoded, count: int, bits: int) -> Vector:
    """The float32 vector ``[count]`` that ``encoded`` stands for.

    Raises:
        CodecError: wrong length, set padding bits, a level out of range, or a number or scale that
            is not finite.
    """
    check_bits(bits)
    if len(encoded.data) != encoded_length(count, bits):
        raise CodecError(
            f"{len(encoded.data)} bytes for {count} numbers of {bits} bits: expected "
            f"{encoded_length(count, bits)}"
        )
    if bits >= 16:
        floats = np.frombuffer(encoded.data, "<f2" if bits == 16 else "<f4").astype(np.float32)
        if not np.isfinite(floats).all():
            raise CodecError("the vector holds NaN or infinity")
        return floats
    scale = np.float32(encoded.scale)
    if not np.isfinite(scale) or scale < 0:
        raise CodecError(f"scale {encoded.scale} is not a finite number of at least 0")
    levels = _unpack(encoded.data, count, bits)
    if scale == 0:
        if levels.any():
            raise CodecError("levels without a scale")
        return np.zeros(count, np.float32)
    if bits == 1:
        return np.where(levels == 1, scale, -scale).astype(np.float32)
    limit = (1 << (bits - 1)) - 1
    if int(levels.max(initial=0)) > 2 * limit:
        raise CodecError(f"a level exceeds {limit}")
    with np.errstate(over="ignore"):
        offsets = (levels.astype(np.float32) - np.float32(limit)) * scale
    if not np.isfinite(offsets).all():
        raise CodecError(f"scale {encoded.scale} makes an offset infinite")
    return offsets


def _pack(levels: NDArray[np.uint8], bits: int) -> bytes:
    if bits == 8:
        return levels.tobytes()
    return np.packbits(np.unpackbits(levels[:, None], axis=1)[:, 8 - bits :].reshape(-1)).tobytes()


def _unpack(data: bytes, count: int, bits: int) -> NDArray[np.uint8]:
    if bits == 8:
        return np.frombuffer(data, np.uint8)
    stream = np.unpackbits(np.frombuffer(data, np.uint8))
    if stream[count * bits :].any():
        raise CodecError("padding bits are set")
    wide = np.zeros((count, 8), np.uint8)
    wide[:, 8 - bits :] = stream[: count * bits].reshape(count, bits)
    return np.packbits(wide, axis=1).reshape(-1)
