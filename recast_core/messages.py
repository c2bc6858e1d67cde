"""Build and check the messages that carry coefficients. Pure functions, no transport."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from protos import recast_v1_pb2 as pb
from recast_core.bank import TemplateBank
from recast_core.codec import WIDTHS, CodecError, Encoded, Vector, decode, encode

# Offsets from the bank's start; 11 bits of precision, half the bytes of float32.
BROADCAST_BITS = 16


@dataclass(frozen=True)
class Hyperparameters:
    """What every client trains with in a round.

    Attributes:
        epochs: passes over the client's data.
        batch: images per step.
        learning_rate: of the coefficients.
        bits: width of an update's numbers.
        seed: of the run; a client's own generator also depends on task, round and client.
    """

    epochs: int = 2
    batch: int = 32
    learning_rate: float = 1e-2
    bits: int = 8
    seed: int = 0


class RefusedError(ValueError):
    """A message that is not acted upon.

    Attributes:
        reason: a stable short code, counted by the ledger.
    """

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


def bank_ref(bank: TemplateBank, size: int) -> pb.BankRef:
    """The reference to ``bank``, whose file has ``size`` bytes."""
    return pb.BankRef(sha256=bank.sha256, size=size)


def to_broadcast(
    bank: TemplateBank, task: int, round_: int, vector: Vector, hyper: Hyperparameters | None = None
) -> pb.Broadcast:
    """The broadcast of coefficients ``vector [D]``; a vector at the bank's start travels as none.

    Raises:
        RefusedError: ``not-finite``, a vector that has diverged.
    """
    message = pb.Broadcast(bank=bank.prefix, task=task, round=round_)
    offsets = vector - bank.initial_vector.numpy()
    if offsets.any():
        try:
            message.coefficients = encode(offsets, BROADCAST_BITS).data
        except CodecError as error:
            raise RefusedError(
                "not-finite", f"coefficients of task {task} diverged: {error}"
            ) from error
    if hyper is not None:
        message.hyperparameters.epochs = hyper.epochs
        message.hyperparameters.batch = hyper.batch
        message.hyperparameters.learning_rate = hyper.learning_rate
        message.hyperparameters.bits = hyper.bits
        message.hyperparameters.seed = hyper.seed
    return message


def from_broadcast(bank: TemplateBank, message: pb.Broadcast) -> Vector:
    """The coefficients ``[D]`` that a broadcast stands for.

    Raises:
        RefusedError: ``wrong-bank``, ``wrong-length`` or ``not-finite``.
    """
    _same_bank(bank, message.bank)
    initial = bank.initial_vector.numpy()
    if not message.coefficients:
        return initial.copy()
    return np.asarray(initial + _decode(message.coefficients, 0.0, bank.sent, BROADCAST_BITS))


def snap(bank: TemplateBank, vector: Vector) -> Vector:
    """``vector`` as its broadcast will arrive, so that both sides hold the same numbers."""
    return from_broadcast(bank, to_broadcast(bank, 0, 0, vector))


def hyperparameters(message: pb.Broadcast) -> Hyperparameters:
    """The hyper-parameters of a broadcast.

    Raises:
        RefusedError: ``malformed``, some that nothing can be trained with.
    """
    hyper = message.hyperparameters
    rate = hyper.learning_rate
    if not (hyper.epochs and hyper.batch and 0 < rate < float("inf") and hyper.bits in WIDTHS):
        raise RefusedError(
            "malformed",
            f"cannot train with epochs {hyper.epochs}, batch {hyper.batch}, "
            f"learning rate {rate:g}, bits {hyper.bits}",
        )
    return Hyperparameters(hyper.epochs, hyper.batch, hyper.learning_rate, hyper.bits, hyper.seed)


def to_update(
    bank: TemplateBank, task: int, round_: int, examples: int, offsets: Vector, bits: int
) -> pb.Update:
    """The update that carries ``offsets [D]`` from the broadcast, in ``bits`` bits each.

    Raises:
        CodecError: NaN or infinity.
    """
    encoded = encode(offsets, bits)
    return pb.Update(
        bank=bank.prefix,
        task=task,
        round=round_,
        examples=examples,
        scale=encoded.scale,
        coefficients=encoded.data,
    )


def from_update(bank: TemplateBank, message: pb.Update, bits: int) -> Vector:
    """The offsets ``[D]`` that an update carries.

    Raises:
        RefusedError: ``wrong-bank``, ``wrong-length``, ``not-finite`` or ``no-examples``.
    """
    _same_bank(bank, message.bank)
    if message.examples == 0:
        raise RefusedError("no-examples", "an update from no examples has no weight")
    return _decode(message.coefficients, message.scale, bank.sent, bits)


def _same_bank(bank: TemplateBank, prefix: int) -> None:
    if prefix != bank.prefix:
        raise RefusedError(
            "wrong-bank", f"bank {prefix:08x} was named, this one is {bank.prefix:08x}"
        )


def _decode(data: bytes, scale: float, count: int, bits: int) -> Vector:
    try:
        return decode(Encoded(data, scale), count, bits)
    except CodecError as error:
        reason = "wrong-length" if "expected" in str(error) else "not-finite"
        raise RefusedError(reason, str(error)) from error
