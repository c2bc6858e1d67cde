"""Rounding an update: at random if asked for, and with what rounding took from the one before."""

from __future__ import annotations

import threading
from typing import Protocol

import numpy as np

from protos import recast_v1_pb2 as pb
from recast_core.wire.codec import Encoded, Vector, decode, encode, fitted
from recast_core.wire.messages import Hyperparameters


def client_seed(seed: int, task: int, round_: int, client: int) -> int:
    """The seed of one client in one round of one task, whatever carries the message."""
    sequence = np.random.SeedSequence([seed, task, round_, client])
    return int(sequence.generate_state(1)[0])


class Memory(Protocol):
    """What a client remembers of a task between rounds."""

    def applicable(self, broadcast: pb.Broadcast, count: int) -> Vector | None:
        """What to add to the update that answers ``broadcast``: float32 ``[count]``, or nothing."""

    def keep(self, broadcast: pb.Broadcast, before: Vector | None, after: Vector) -> None:
        """Remember what was left before the answer to ``broadcast`` and what it leaves."""


def round_update(
    offsets: Vector,
    memory: Memory | None,
    broadcast: pb.Broadcast,
    hyper: Hyperparameters,
    seed: int,
) -> Encoded:
    """Encode offsets, with error feedback (Karimireddy et al., ICML 2019) where there is memory.

    Args:
        offsets: from the broadcast, float32 ``[D]``.
        memory: of what earlier updates did not say; ``None`` for no error feedback.
        broadcast: that the update answers.
        hyper: the width, and how to round.
        seed: of this client, round and task; see ``client_seed``.

    Raises:
        CodecError: NaN or infinity.
        RecastError: the memory cannot be written.
    """
    residual = memory.applicable(broadcast, len(offsets)) if memory else None
    wanted = offsets if residual is None else offsets + residual
    encoded = encode(wanted, hyper.bits, _stream(seed) if hyper.stochastic else None)
    if memory:
        if hyper.stochastic:
            encoded = fitted(encoded, wanted, hyper.bits)
        memory.keep(broadcast, residual, wanted - decode(encoded, len(wanted), hyper.bits))
    return encoded


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
