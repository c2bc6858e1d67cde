"""Random numbers that hang on an image's seed alone, in integers: the same on every device.

A number is a hash of (seed, stream, place). So an image gets the same ones alone and in a batch, on
a CPU and on a GPU, in any version of PyTorch; generators promise none of the three.
"""

from __future__ import annotations

import zlib
from functools import lru_cache

import torch
from torch import Tensor

_MASK = 0xFFFFFFFF
NORMAL_ONE = 1 << 10
"""What `normal` returns for one standard deviation."""
_LEVELS = 1 << 16


def _mix(x: Tensor, key: Tensor | int = 0) -> Tensor:
    """Return a well-mixed permutation of the low 32 bits (Wellons' lowbias32) of int64 values."""
    x = x & _MASK
    x = ((x ^ (x >> 16)) * 0x7FEB352D) & _MASK
    x = x ^ key
    x = ((x ^ (x >> 15)) * 0x846CA68B) & _MASK
    return x ^ (x >> 16)


def keyed(seeds: Tensor, name: str) -> Tensor:
    """Return int64 [N] seeds that differ from `seeds` [N] by what they are used for."""
    word = zlib.crc32(name.encode())
    low = _mix(seeds ^ word)
    high = _mix((seeds >> 32) + low, word)
    return (high << 31) ^ low


def seeds_of(index: Tensor, *parts: Tensor | int) -> Tensor:
    """Return int64 [N] seeds of images.

    Args:
        index: int64 [N], an image's place in its data set.
        parts: what else they depend on: the data's seed, the part of the data, a turn.
    """
    low, high = _mix(index), _mix((index >> 32) ^ 0x5BD1E995)
    for part in parts:
        low, high = _mix(low + part), _mix(high ^ low ^ part)
    return (high << 31) ^ low


def words(seeds: Tensor, stream: int, *shape: int) -> Tensor:
    """Return int64 [N, *shape], uniform in 0 .. 2**32 - 1.

    Args:
        seeds: int64 [N].
        stream: which of an image's sequences.
        shape: of one image's numbers.
    """
    count = 1
    for side in shape:
        count *= side
    place = torch.arange(count, dtype=torch.int64, device=seeds.device)
    low = _mix(seeds + stream * 0x9E3779B9)[:, None]
    high = _mix((seeds >> 32) ^ (low[:, 0] + stream))[:, None]
    return _mix((place * 0x9E3779B1)[None] ^ low, high).reshape(len(seeds), *shape)


def below(numbers: Tensor, limit: int) -> Tensor:
    """Map int64 words to integers, uniform in 0 .. limit - 1 (limit < 2**31)."""
    return (numbers * limit) >> 32


def normal(seeds: Tensor, stream: int, *shape: int) -> Tensor:
    """Return int32 [N, *shape], normal with standard deviation `NORMAL_ONE`, cut at 4.3 of them."""
    table = _normal_table().to(seeds.device)
    return table[words(seeds, stream, *shape) >> 16]


def field(seeds: Tensor, stream: int, cells: int, height: int, width: int) -> Tensor:
    """Return int32 [N, 1, height, width], 0 to 255: smooth random clouds of `cells` to a side."""
    nodes = below(words(seeds, stream, cells, cells), 256).double()
    # In double precision products and sums of these integers are exact in whatever order.
    rows, columns = (_ramps(cells, side).to(seeds.device) for side in (height, width))
    smooth = rows @ nodes @ columns.T
    return (smooth.to(torch.int32) >> (2 * _RAMP_BITS))[:, None]


_RAMP_BITS = 6


@lru_cache(maxsize=64)
def _ramps(cells: int, side: int) -> Tensor:
    """Return float64 [side, cells] of integers: smoothstep weights, a row's sum 2**_RAMP_BITS."""
    weights = torch.zeros(side, cells, dtype=torch.float64)
    for place in range(side):
        at = min(max((place + 0.5) * cells / side - 0.5, 0.0), cells - 1.0)
        node = min(int(at), max(cells - 2, 0))
        part = at - node
        upper = round(part * part * (3 - 2 * part) * (1 << _RAMP_BITS))
        weights[place, node] += (1 << _RAMP_BITS) - upper
        weights[place, min(node + 1, cells - 1)] += upper
    return weights


@lru_cache(maxsize=1)
def _normal_table() -> Tensor:
    """Return int32 [65536]: the normal quantiles, rounded so that every machine has the same."""
    middle = (torch.arange(_LEVELS, dtype=torch.float64) + 0.5) / _LEVELS
    quantiles: Tensor = torch.special.ndtri(middle) * NORMAL_ONE
    return quantiles.round().to(torch.int32)
