"""Rounding an update: at random if asked for, and with what rounding took from the one before."""

from __future__ import annotations

import numpy as np

from recast_core.codec import Encoded, Vector, decode, encode
from recast_core.messages import Hyperparameters


def client_seed(seed: int, task: int, round_: int, client: int) -> int:
    """The seed of one client in one round of one task, whatever carries the message."""
    sequence = np.random.SeedSequence([seed, task, round_, client])
    return int(sequence.generate_state(1)[0])


def round_update(
    offsets: Vector, residual: Vector | None, hyper: Hyperparameters, seed: int
) -> tuple[Encoded, Vector]:
    """Encode offsets together with a residual (error feedback: Karimireddy et al., ICML 2019).

    Args:
        offsets: from the broadcast, float32 ``[D]``.
        residual: what earlier updates did not say, ``[D]``; ``None`` for nothing.
        hyper: the width, and how to round.
        seed: of this client, round and task; see ``client_seed``.

    Returns:
        What is sent, and what it does not say of ``offsets + residual``.

    Raises:
        CodecError: NaN or infinity.
    """
    wanted = offsets if residual is None else offsets + residual
    # A stream of its own: the seed itself shuffles the images.
    random = np.random.default_rng([seed, 1]) if hyper.stochastic else None
    encoded = encode(wanted, hyper.bits, random)
    return encoded, wanted - decode(encoded, len(wanted), hyper.bits)
