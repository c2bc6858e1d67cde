"""What a device says in its next uplink, and what it does with a downlink.

An edge engineer's loop, class A::

    device = Device(application(local, settings), sha256, coefficients=48, task=(1, "impulse"))
    while True:
        wait(device.seconds_to_wait(time.monotonic()))
        downlink = radio.send(device.uplink(time.monotonic()), port=PORT)  # RX1, RX2
        if downlink is not None:
            device.take(downlink)
"""

from __future__ import annotations

import logging
from collections.abc import Callable

import numpy as np

from protos import lorawan as wire
from protos import recast_v1_pb2 as pb
from recast_core.airtime import Duty, frame_seconds
from recast_core.errors import RecastError
from recast_core.wire.codec import CodecError, Encoded, Vector, decode

logger = logging.getLogger("recast.lorawan")
Answer = Callable[[str, bytes], bytes]
# An answer is repeated while nothing newer comes: one of them may have been lost.
REPEATS = 3


class Device:
    """A client whose messages are frames of LoRaWAN."""

    def __init__(
        self,
        answer: Answer,
        bank: bytes,
        *,
        coefficients: int,
        task: tuple[int, str],
        spreading: int = 12,
        poll: float = 600.0,
        duty: float = 0.01,
    ) -> None:
        """Ask the application what it has.

        Args:
            answer: a message's type and bytes to those of the answer: the ClientApp.
            bank: its SHA-256; the file came with the device.
            coefficients: that the bank trains.
            task: number and name.
            spreading: factor, 12 at DR0 down to 7 at DR5.
            poll: seconds between two uplinks that only ask whether there is something to do.
            duty: the share of time that may be on the air.

        Raises:
            RecastError: the application lacks the bank, or images of the task.
        """
        self._answer, self._prefix = answer, int.from_bytes(bank[:4], "big")
        self._count, self._spreading, self._poll = coefficients, spreading, poll
        self.duty, self.longest = Duty(duty), 0
        number, name = task
        request = pb.HelloRequest(
            bank=pb.BankRef(sha256=bank), tasks=[pb.Task(id=number, name=name)]
        )
        hello = self._ask("query.hello", pb.ToClient(hello=request)).hello
        if not hello.holds_bank:
            raise RecastError(f"bank {bank[:4].hex()} is not on this device: copy its file there")
        if not hello.tasks:
            lack = hello.lacks[0].detail if hello.lacks else "none were found"
            raise RecastError(f"no images of {name} on this device: {lack}")
        data = hello.tasks[0]
        self._has = (
            hello.client, data.train_examples, data.test_examples, data.classes,
            data.local_classes, data.class_hash,
        )  # fmt: skip
        self._task = number
        self._seq = 0
        self._state: Vector = np.zeros(coefficients, np.float32)
        self._config: wire.Config | None = None
        self._answered: tuple[wire.Down, int] | None = None
        self._pending: bytes | None = None
        self._repeats = 0
        self._heard = False

    def seconds_to_wait(self, now: float) -> float:
        """Until the next uplink: for the duty cycle, and where there is nothing to say."""
        free = max(0.0, self.duty.free_at() - now)
        hurries = self._pending is not None and self._repeats < REPEATS
        return free if hurries or not self.duty.frames else max(free, self._poll)

    def uplink(self, now: float) -> bytes:
        """What to send; its time on air counts from ``now``."""
        if self._pending is not None and self._repeats < REPEATS:
            self._repeats += 1
            frame = self._pending
        elif not self._heard:
            frame = wire.pack_up(
                wire.Announce(self._seq, self._number, self._task, self._prefix, *self._has)
            )
        else:
            frame = wire.pack_up(wire.Said(wire.Up.POLL, self._seq, self._number, self._task))
        self.longest = max(self.longest, len(frame))
        self.duty.sent(now, frame_seconds(len(frame), self._spreading))
        return frame

    def take(self, raw: bytes) -> None:
        """Do what a downlink asks for; blocks for as long as training takes."""
        try:
            frame = wire.unpack_down(raw)
        except wire.FrameError as error:
            logger.warning("a downlink is left alone: %s", error)
            return
        self._heard = True
        if isinstance(frame, wire.Config):
            self._pending = None
            if frame.number:
                self._config = frame
            else:  # the server knows nothing of this device: what is here is said again
                self._config, self._heard, self._seq = None, False, 0
            return
        if frame.config != self._number or frame.task != self._task or not self._move(frame):
            # The next uplink says what is here, and what is missing comes again.
            self._pending = None
            return
        if self._answered == (frame.kind, frame.round):
            # The server asks again: it has not heard the answer.
            self._repeats = 0
            return
        self._pending, self._repeats = self._work(frame), 0
        self._answered = frame.kind, frame.round

    @property
    def _number(self) -> int:
        return 0 if self._config is None else self._config.number

    def _move(self, frame: wire.Told) -> bool:
        """Apply a difference; whether it is one to the state that is here."""
        if frame.seq == self._seq:
            return True
        if frame.base not in (0, self._seq):
            return False
        before = np.zeros_like(self._state) if frame.base == 0 else self._state
        if not frame.body:  # no difference
            self._state, self._seq = before, frame.seq
            return True
        try:
            change = decode(Encoded(frame.body, frame.scale), self._count, frame.bits)
        except CodecError as error:
            logger.warning("a downlink is left alone: %s", error)
            return False
        self._state, self._seq = before + change, frame.seq
        return True

    def _work(self, frame: wire.Told) -> bytes:
        """Train or evaluate; the frame that says what came of it."""
        assert self._config is not None
        broadcast = pb.Broadcast.FromString(self._config.body)
        broadcast.bank, broadcast.task, broadcast.round = self._prefix, self._task, frame.round
        if self._state.any():
            broadcast.coefficients, broadcast.bits = self._state.astype("<f4").tobytes(), 32
        training = frame.kind == wire.Down.TRAIN
        if not training:
            broadcast.ClearField("hyperparameters")
            broadcast.head_kind = frame.head  # type: ignore[assignment]
        body = pb.ToClient(train=broadcast) if training else pb.ToClient(evaluate=broadcast)
        reply = self._ask("train" if training else "evaluate", body)
        said = {"seq": self._seq, "config": self._number, "task": self._task}
        match reply.WhichOneof("body"):
            case "update":
                update = reply.update
                bits = broadcast.hyperparameters.bits
                made = wire.Said(
                    wire.Up.UPDATE, **said, round=frame.round, examples=update.examples,
                    bits=bits, scale=update.scale, body=update.coefficients,
                )  # fmt: skip
            case "evaluation":
                found = reply.evaluation
                found.bank = found.task = found.round = 0
                made = wire.Said(
                    wire.Up.EVALUATION, **said, round=frame.round, body=found.SerializeToString()
                )
            case _:
                logger.warning("round %d: %s", frame.round, reply.refusal.detail)
                reason = bytes((reply.refusal.reason or pb.Refusal.REASON_FAILED,))
                made = wire.Said(wire.Up.REFUSAL, **said, round=frame.round, body=reason)
        return wire.pack_up(made)

    def _ask(self, type_: str, body: pb.ToClient) -> pb.ToServer:
        return pb.ToServer.FromString(self._answer(type_, body.SerializeToString()))
