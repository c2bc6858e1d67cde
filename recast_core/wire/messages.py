"""Build and check the messages that carry coefficients. Pure functions, no transport."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from protos import recast_v1_pb2 as pb
from recast_core.errors import RecastError
from recast_core.recipe import Recipe
from recast_core.start import Start
from recast_core.wire import gaussian  # noqa: F401  registers its transform
from recast_core.wire.codec import WIDTHS, CodecError, Encoded, LengthError, Vector, decode, encode
from recast_core.wire.fields import read_fields, write_fields
from recast_core.wire.transforms import chain

# Offsets from the bank's start; 11 bits of precision, half the bytes of float32.
BROADCAST_BITS = 16
# Whoever asks for more would keep a client busy for good.
MAX_EPOCHS = 100_000
_SNAPS = 16


@dataclass(frozen=True)
class Hyperparameters(Recipe):
    """What a broadcast tells every client: the recipe, and how its update is sent.

    The fields are those of the message, by name.

    Attributes:
        bits: width of an update's numbers.
        seed: of the run; a client's own generator also depends on task, round and client.
        stochastic: round updates at random instead of to nearest.
        error_feedback: add to an update what rounding took from the one before.
        transforms: that make an update of what was trained; see ``recast_core.wire.transforms``.
        report_loss: an update also says what its training's loss was.
    """

    bits: int = 8
    seed: int = 0
    stochastic: bool = False
    error_feedback: bool = False
    transforms: str = ""
    report_loss: bool = False


class RefusedError(ValueError):
    """A message that is not acted upon.

    Attributes:
        reason: a stable short code, counted by the ledger.
    """

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


def bank_ref(start: Start, size: int) -> pb.BankRef:
    """The reference to ``start``, whose file has ``size`` bytes."""
    return pb.BankRef(sha256=start.sha256, size=size)


def to_broadcast(
    start: Start,
    task: int,
    round_: int,
    vector: Vector,
    hyper: Hyperparameters | None = None,
    bits: int = BROADCAST_BITS,
) -> pb.Broadcast:
    """The broadcast of coefficients ``vector [D]``; a vector at the bank's start travels as none.

    Raises:
        RefusedError: ``not-finite``, a vector that has diverged.
    """
    message = pb.Broadcast(bank=start.prefix, task=task, round=round_)
    offsets = vector - start.initial_vector.numpy()
    if offsets.any():
        try:
            encoded = encode(offsets, bits)
        except CodecError as error:
            raise RefusedError(
                "not-finite", f"coefficients of task {task} diverged: {error}"
            ) from error
        # Neither where every offset is too small for the width: that is the start.
        if encoded.scale or (bits >= 16 and any(encoded.data)):
            message.coefficients, message.scale = encoded.data, encoded.scale
            if bits != BROADCAST_BITS:
                message.bits = bits
    if hyper is not None:
        write_fields(hyper, message.hyperparameters)
    return message


def from_broadcast(start: Start, message: pb.Broadcast) -> Vector:
    """The coefficients ``[D]`` that a broadcast stands for.

    Raises:
        RefusedError: ``wrong-bank``, ``wrong-length``, ``not-finite``, or ``malformed``: bits that
            are no width, or that say what their absence says.
    """
    _same_bank(start, message.bank)
    initial = start.initial_vector.numpy()
    bits = message.bits or BROADCAST_BITS
    if not message.coefficients:
        if message.bits or message.scale:
            raise RefusedError("malformed", "bits or scale of no coefficients")
        return initial.copy()
    if bits not in WIDTHS or message.bits == BROADCAST_BITS:
        raise RefusedError("malformed", f"coefficients of {message.bits} bits")
    return np.asarray(initial + _decode(message.coefficients, message.scale, start.sent, bits))


def snap(start: Start, vector: Vector, bits: int = BROADCAST_BITS) -> Vector:
    """``vector`` as its broadcast will arrive, so that both sides hold the same numbers.

    Snapping again changes nothing: the sum of start and offset is rounded too, and may fall beside
    the offset that it was made from, so this goes on until it does not.

    Raises:
        RefusedError: ``not-finite``, a vector that has diverged.
    """
    for _ in range(_SNAPS):
        before, vector = (
            vector,
            from_broadcast(start, to_broadcast(start, 0, 0, vector, None, bits)),
        )
        if np.array_equal(vector, before):
            break
    return vector


def hyperparameters(message: pb.Broadcast) -> Hyperparameters:
    """The hyper-parameters of a broadcast.

    Raises:
        RefusedError: ``malformed``, some that nothing can be trained with.
    """
    hyper = message.hyperparameters
    rate = hyper.learning_rate
    if not (
        0 < hyper.epochs <= MAX_EPOCHS
        and hyper.batch
        and 0 < rate < float("inf")
        and hyper.bits in WIDTHS
        and hyper.objective in pb.Objective.values()
    ):
        raise RefusedError(
            "malformed",
            f"cannot train with epochs {hyper.epochs}, batch {hyper.batch}, "
            f"learning rate {rate:g}, bits {hyper.bits}, objective {hyper.objective}",
        )
    try:
        chain(hyper.transforms)
    except RecastError as error:
        raise RefusedError("malformed", str(error)) from error
    return read_fields(Hyperparameters, hyper)


def to_update(
    start: Start, task: int, round_: int, examples: int, offsets: Vector, bits: int
) -> pb.Update:
    """The update that carries ``offsets [D]`` from the broadcast, in ``bits`` bits each.

    Raises:
        CodecError: NaN or infinity.
    """
    return update_of(start, task, round_, examples, encode(offsets, bits))


def update_of(start: Start, task: int, round_: int, examples: int, encoded: Encoded) -> pb.Update:
    """The update that carries offsets which are encoded already."""
    return pb.Update(
        bank=start.prefix,
        task=task,
        round=round_,
        examples=examples,
        scale=encoded.scale,
        coefficients=encoded.data,
    )


def from_update(start: Start, message: pb.Update, bits: int) -> Vector:
    """The offsets ``[D]`` that an update carries.

    Raises:
        RefusedError: ``wrong-bank``, ``wrong-length``, ``not-finite`` or ``no-examples``.
    """
    _same_bank(start, message.bank)
    if message.examples == 0:
        raise RefusedError("no-examples", "an update from no examples has no weight")
    return _decode(message.coefficients, message.scale, start.sent, bits)


def _same_bank(start: Start, prefix: int) -> None:
    if prefix != start.prefix:
        raise RefusedError(
            "wrong-bank", f"bank {prefix:08x} was named, this one is {start.prefix:08x}"
        )


def _decode(data: bytes, scale: float, count: int, bits: int) -> Vector:
    try:
        return decode(Encoded(data, scale), count, bits)
    except CodecError as error:
        reason = "wrong-length" if isinstance(error, LengthError) else "not-finite"
        raise RefusedError(reason, str(error)) from error
