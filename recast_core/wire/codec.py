"""Coefficients as bytes: offsets in a few bits each, with one scale.

Widths: 32 and 16 are IEEE floats (no scale); 8 to 2 are signed integers ``q`` with
``offset = q * scale``; 1 is the sign, with ``scale`` the magnitude. Integers are packed most
significant bit first, the last byte padded with zero bits, so that a vector has exactly one length
and one encoding.

Rounding is to nearest, or stochastic: unbiased, by a random generator that is handed in.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recast_core.errors import RecastError

Vector = NDArray[np.float32]
WIDTHS = (32, 16, 8, 7, 6, 5, 4, 3, 2, 1)

# A scale keeps 12 bits of its float32's 24, so that levels times scale are exact, and a decoded
# vector is encoded to the same bytes again.
_SCALE_STEPS = 1 << 12
_SMALLEST_SCALE = 2.0**-126
_LARGEST = float(np.finfo(np.float32).max)
# Between the largest number of 16 bits and the next power of 2: from here on it rounds to infinity.
_HALF_INFINITE = 65520.0
_FLOATS: dict[int, str] = {16: "<f2", 32: "<f4"}


@dataclass(frozen=True)
class Encoded:
    """A vector on the wire: its packed numbers and their scale (0 where none is needed)."""

    data: bytes
    scale: float


class CodecError(ValueError):
    """Bytes that are not the encoding of a vector; the message says why."""


class LengthError(CodecError):
    """Bytes of another number than the vector's encoding has."""


def check_bits(bits: int) -> int:
    """``bits`` if it is a width of this codec; raises RecastError otherwise."""
    if bits not in WIDTHS:
        raise RecastError(f"no codec of {bits} bits: choose one of {', '.join(map(str, WIDTHS))}")
    return bits


def encoded_length(count: int, bits: int) -> int:
    """The bytes that ``count`` numbers of ``bits`` bits take."""
    return (count * bits + 7) // 8


def encode(offsets: Vector, bits: int, random: np.random.Generator | None = None) -> Encoded:
    """Encode float32 ``[D]``.

    Args:
        offsets: to encode.
        bits: one of ``WIDTHS``.
        random: rounds integers up or down at random, so that the expected value is the offset
            (then 1 bit has the largest magnitude as its scale); ``None`` rounds to nearest (and
            1 bit has the mean magnitude). Floats are always rounded to nearest.

    Raises:
        RecastError: an unknown width.
        CodecError: NaN or infinity, or an offset beyond what the width holds.
    """
    check_bits(bits)
    offsets = np.ascontiguousarray(offsets, np.float32)
    magnitudes = np.abs(offsets)
    peak = float(magnitudes.max(initial=0.0))
    if not math.isfinite(peak):
        raise CodecError("the vector holds NaN or infinity")
    if bits >= 16:
        if bits == 16 and peak >= _HALF_INFINITE:
            raise CodecError("an offset is too large for 16 bits: send 32")
        return Encoded(offsets.astype(_FLOATS[bits]).tobytes(), 0.0)
    limit = np.float32((1 << (bits - 1)) - 1)
    if bits > 1:
        scale = _coarse(peak / float(limit))
    elif random is not None:
        scale = _coarse(peak)
    else:
        scale = _coarse(float(magnitudes.sum(dtype=np.float64)) / max(offsets.size, 1))
    if scale == 0.0:
        # Nothing to say: the canonical form of the zero vector has zero levels.
        return Encoded(bytes(encoded_length(offsets.size, bits)), 0.0)
    step = np.float32(scale)
    if bits == 1:
        threshold = step * (2 * random.random(offsets.size, np.float32) - 1) if random else 0
        levels = (offsets >= threshold).view(np.uint8)
    elif random is None:
        levels = (np.rint(offsets / step) + limit).astype(np.uint8)
    else:
        # Counted from the lowest level nothing is negative, so that the cast rounds down. A coarse
        # scale may put the largest magnitude a hair beyond the last level.
        counted = offsets / step + (random.random(offsets.size, np.float32) + limit)
        levels = np.minimum(counted, 2 * limit).astype(np.uint8)
    return Encoded(_pack(levels, bits), scale)


def fitted(encoded: Encoded, offsets: Vector, bits: int) -> Encoded:
    """The same levels with the scale that is nearest to ``offsets`` by least squares.

    What is then left of the offsets is never longer than they are. Rounded at random to 1 or 2 bits
    it can be, so that errors kept for the next update would grow without end; to nearest it is not.

    Args:
        encoded: of ``encode``, rounded at random.
        offsets: that were encoded, float32 ``[D]``.
        bits: one of ``WIDTHS``; floats, which have no scale, come back as they are.
    """
    if encoded.scale == 0.0:
        return encoded
    said = decode(encoded, len(offsets), bits).astype(np.float64)
    # All may have been rounded away, or to the other side: then nothing is said.
    along, length = float(offsets @ said), float(said @ said)
    scale = _coarse(encoded.scale * along / length) if along > 0 else 0.0
    return Encoded(encoded.data if scale else bytes(len(encoded.data)), scale)


def decode(encoded: Encoded, count: int, bits: int) -> Vector:
    """The float32 vector ``[count]`` that ``encoded`` stands for.

    Raises:
        LengthError: wrong length.
        CodecError: set padding bits, a level out of range, a scale where none is needed, or a
            number or scale that is not finite.
    """
    check_bits(bits)
    if len(encoded.data) != encoded_length(count, bits):
        raise LengthError(
            f"{len(encoded.data)} bytes for {count} numbers of {bits} bits: expected "
            f"{encoded_length(count, bits)}"
        )
    scale = encoded.scale
    if not 0.0 <= scale < math.inf:
        raise CodecError(f"scale {scale} is not a finite number of at least 0")
    if bits >= 16:
        if scale:
            raise CodecError(f"scale {scale} with numbers of {bits} bits, which have none")
        floats: Vector = np.frombuffer(encoded.data, _FLOATS[bits]).astype(np.float32)
        if not np.isfinite(floats).all():
            raise CodecError("the vector holds NaN or infinity")
        return floats
    if scale == 0.0:
        if any(encoded.data):
            raise CodecError("levels without a scale")
        return np.zeros(count, np.float32)
    levels = _unpack(encoded.data, count, bits)
    if bits == 1:
        return np.where(levels, np.float32(scale), np.float32(-scale))
    limit = (1 << (bits - 1)) - 1
    if 2 * limit + 1 in levels.tobytes():
        raise CodecError(f"a level exceeds {limit}")
    if scale * limit > _LARGEST:
        raise CodecError(f"scale {scale} makes an offset infinite")
    return (levels.astype(np.float32) - np.float32(limit)) * np.float32(scale)


def _coarse(scale: float) -> float:
    """The nearest scale with few bits; 0 where it is too small to be a normal number."""
    mantissa, exponent = math.frexp(scale)
    coarse = math.ldexp(round(mantissa * _SCALE_STEPS) / _SCALE_STEPS, exponent)
    if coarse > _LARGEST:
        coarse = math.ldexp(1 - 1 / _SCALE_STEPS, 128)
    return coarse if coarse >= _SMALLEST_SCALE else 0.0


def _pack(levels: NDArray[np.uint8], bits: int) -> bytes:
    if bits == 8:
        return levels.tobytes()
    if bits == 1:
        return np.packbits(levels).tobytes()
    wide = np.unpackbits(levels).reshape(-1, 8)
    return np.packbits(wide[:, 8 - bits :]).tobytes()


def _unpack(data: bytes, count: int, bits: int) -> NDArray[np.uint8]:
    packed = np.frombuffer(data, np.uint8)
    if bits == 8 or count == 0:
        return packed
    used = count * bits
    if data[-1] & ((1 << (8 * len(data) - used)) - 1):
        raise CodecError("padding bits are set")
    stream = np.unpackbits(packed)[:used]
    if bits == 1:
        return stream
    wide = np.zeros((count, 8), np.uint8)
    wide[:, 8 - bits :] = stream.reshape(count, bits)
    return np.packbits(wide)
