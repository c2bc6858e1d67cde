"""Rounding an update, to nearest or at random."""

from __future__ import annotations

import threading

import numpy as np

from recast_core.wire.codec import Encoded, Vector, encode


def client_seed(seed: int, task: int, round_: int, client: int) -> int:
    """The seed of one client in one round of one task, whatever carries the message."""
    sequence = np.random.SeedSequence([seed, task, round_, client])
    return int(sequence.generate_state(1)[0])


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
