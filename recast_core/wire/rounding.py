"""Rounding an update, to nearest or at random."""

from __future__ import annotations

import threading
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from recast_core.wire.codec import Encoded, Vector, encode

Words = NDArray[np.uint32]
# Of NumPy's SeedSequence.
_FIRST, _MULTIPLIER, _MASK = 0x43B0D7E5, 0x931E8875, 0xFFFFFFFF
_LEFT, _RIGHT = np.uint32(0xCA01F9DD), np.uint32(0x4973F715)
_SECOND, _THIRD = np.uint32(0x8B51F9DD), np.uint32(0x8B51F9DD * 0x58F38DED & _MASK)


def client_seed(seed: int, task: int, round_: int, client: int) -> int:
    """The seed of one client in one round of one task, whatever carries the message."""
    if seed >= 0 and max(seed, task, round_, client) < 1 << 32:
        return _seeds(seed, task, round_, client // _BLOCK)[client % _BLOCK]
    sequence = np.random.SeedSequence([seed, task, round_, client])
    return int(sequence.generate_state(1)[0])


# Seeds that are made at once: a simulation asks for those of neighbours.
_BLOCK = 256


@lru_cache(maxsize=64)
def _seeds(seed: int, task: int, round_: int, block: int) -> list[int]:
    """What ``SeedSequence([seed, task, round_, client]).generate_state(1)`` is for a block.

    Each number is below 2^32. This is that class's arithmetic (O'Neill's seed_seq), for all at
    once: to make one object takes as long as ten of these.
    """
    clients = np.arange(block * _BLOCK, (block + 1) * _BLOCK, dtype=np.uint32)
    factor = _FIRST
    told = [np.full(_BLOCK, one, np.uint32) for one in (seed, task, round_)]

    def hashed(words: Words) -> Words:
        nonlocal factor
        words = words ^ np.uint32(factor)
        factor = factor * _MULTIPLIER & _MASK
        words = words * np.uint32(factor)
        return words ^ words >> np.uint32(16)

    pool = [hashed(words) for words in (*told, clients)]
    for source in range(4):
        for place in range(4):
            if source != place:
                mixed = _LEFT * pool[place] - _RIGHT * hashed(pool[source])
                pool[place] = mixed ^ mixed >> np.uint32(16)
    words = (pool[0] ^ _SECOND) * _THIRD
    found: list[int] = (words ^ words >> np.uint32(16)).tolist()
    return found


def at_random(offsets: Vector, bits: int, seed: int) -> Encoded:
    """Encode offsets ``[D]`` so that each is right on average; ``seed`` alone decides.

    Raises:
        CodecError: NaN or infinity.
    """
    return encode(offsets, bits, _stream(seed))


class _Held(threading.local):
    def __init__(self) -> None:
        self.bits = np.random.Philox(key=0)
        self.generator = np.random.Generator(self.bits)


_held = _Held()
_ZERO = np.zeros(4, np.uint64)


def _stream(seed: int) -> np.random.Generator:
    """A stream that hangs on ``seed`` alone, apart from the one that shuffles the images.

    Philox takes its key as it is (Salmon et al., SC 2011). Setting it costs a tenth of making a
    generator, which would take longer than to encode an update.
    """
    _held.bits.state = {
        "bit_generator": "Philox",
        "state": {"counter": _ZERO, "key": np.array([seed, 1], np.uint64)},
        "buffer": _ZERO,
        "buffer_pos": 4,
        "has_uint32": 0,
        "uinteger": 0,
    }
    return _held.generator
