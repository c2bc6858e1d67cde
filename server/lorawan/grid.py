"""A Flower grid of LoRaWAN devices: one frame up and one down for a client and round.

The messages of the strategy never reach the air. A greeting is answered by what a device announced,
a broadcast becomes a difference to what the device has, an update is rebuilt from its frame; its
numbers are those that the device sent, to the bit.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable

from flwr.app import Error, Message
from google.protobuf.message import DecodeError

from protos import lorawan as wire
from protos import recast_v1_pb2 as pb
from protos.content import from_content
from recast_core.airtime import Duty, frame_seconds
from recast_core.text import how_many
from server.flower import ServedGrid
from server.link.identity import node_id
from server.link.notices import KEPT_REFUSALS
from server.lorawan.account import Account
from server.lorawan.answers import answer_to, greeting, offsets
from server.lorawan.chirpstack import Chirpstack, MakeBroker, Uplink
from server.lorawan.pending import Pending
from server.lorawan.states import Ask, DeviceState
from server.record.rows import Air, Refusal

logger = logging.getLogger("recast.lorawan")
DOWN_BITS = 5
# A gateway answers in the second window, where EU868 lets it be on the air a tenth of the time.
GATEWAY_DUTY = 0.1
LOST_AFTER = 86_400.0


class LoraGrid(ServedGrid):
    """A grid whose nodes are devices of one application of ChirpStack.

    Attributes:
        longest_reply: bytes of an update's numbers.
    """

    longest_reply = wire.MOST - wire.UPDATE_HEADER

    def __init__(
        self,
        application: str,
        make: MakeBroker,
        *,
        deadline: float = 86_400.0,
        clock: Callable[[], float] = time.monotonic,
        gateway_duty: float = GATEWAY_DUTY,
    ) -> None:
        """Connect to ChirpStack's broker, however long it takes.

        Args:
            application: its id.
            make: a connection to the broker.
            deadline: seconds that ``send_and_receive`` waits.
            clock: seconds, of the air.
            gateway_duty: the share of time that the gateway may be on the air.

        Raises:
            RecastError: the broker will not have this server.
        """
        super().__init__()
        self._deadline, self._clock = deadline, clock
        self._changed = threading.Condition()
        self._devices: dict[str, DeviceState] = {}
        self._pending = Pending()
        self._refusals: deque[Refusal] = deque(maxlen=KEPT_REFUSALS)
        self._config = wire.Config(0, b"")
        self._gateway = Duty(gateway_duty)
        self._waiting: list[DeviceState] = []
        self._account = Account()
        self._uplinks = 0
        self._chirpstack = Chirpstack(application, make, self._heard, self._sent)
        self._chirpstack.open()

    def end(self, *, finished: bool) -> None:
        """Leave the broker; devices hear no more, and ask on."""
        self._chirpstack.close()

    def wait_for_clients(self, count: int) -> None:
        """Return when ``count`` devices have announced what they have."""
        with self._changed:
            self._changed.wait_for(lambda: len(self._announced()) >= count)

    @property
    def heard(self) -> int:
        """How many uplinks have come."""
        return self._uplinks

    @property
    def asking(self) -> int:
        """How many devices have been asked something that they have not answered."""
        with self._changed:
            return sum(device.ask is not None for device in self._devices.values())

    def names(self) -> dict[int, str]:
        """See ``server.exchange.naming``."""
        with self._changed:
            return {node_id(device): device for device in self._devices}

    def get_node_ids(self) -> Iterable[int]:
        """The devices that announced, and were heard within a day."""
        now = self._clock()
        with self._changed:
            return [node_id(d.device) for d in self._announced() if now - d.seen < LOST_AFTER]

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Answer what need not go on the air; queue the rest for the devices' next uplinks."""
        with self._changed:
            asked = self._pending.ask(messages)
            for key, message in asked.items():
                self._push(key, message)
            self._changed.notify_all()
        return list(asked)

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """The replies to these messages that have come, each once."""
        with self._changed:
            return self._pending.take(message_ids)

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        """Send messages and return the replies; whoever does not answer in time has none."""
        keys = list(self.push_messages(messages))
        seconds = self._deadline if timeout is None else min(timeout, self._deadline)
        with self._changed:
            self._changed.wait_for(lambda: all(map(self._pending.has, keys)), seconds)
        return self.pull_messages(keys)

    def take_refusals(self) -> list[Refusal]:
        """What has been refused since this was last called, by device; the latest of too much."""
        with self._changed:
            found = list(self._refusals)
            self._refusals.clear()
            return found

    def take_air(self) -> list[Air]:
        """What has been on the air since this was last called, by device."""
        with self._changed:
            return self._account.take()

    def _announced(self) -> list[DeviceState]:
        return [device for device in self._devices.values() if device.announced]

    # Down.

    def _push(self, key: str, message: Message) -> None:
        node = message.metadata.dst_node_id
        device = next((d for d in self._devices.values() if node_id(d.device) == node), None)
        body = pb.ToClient.FromString(from_content(message) or b"")
        which = body.WhichOneof("body")
        if device is None:
            self._fail(key, "this device has never been heard")
        elif which == "hello":
            self._answer(key, pb.ToServer(hello=greeting(device, body.hello)))
        elif which == "train":
            self._ask(key, device, wire.Down.TRAIN, body.train)
        elif which == "evaluate":
            self._ask(key, device, wire.Down.EVALUATE, body.evaluate)
        else:
            what = {"bank": "a bank", "head": "a head", "keys": "keys"}.get(str(which), "this")
            detail = f"{what} does not go over LoRaWAN: bring the bank's file with the device"
            reason = pb.Refusal.REASON_BANK_MISSING
            self._answer(key, pb.ToServer(refusal=pb.Refusal(reason=reason, detail=detail)))

    def _ask(self, key: str, device: DeviceState, kind: wire.Down, sent: pb.Broadcast) -> None:
        announced = device.announced.get(sent.task)
        if announced is None or announced.bank != sent.bank:
            reasons = pb.Refusal
            reason = reasons.REASON_BANK_MISMATCH if announced else reasons.REASON_NO_DATA
            refusal = pb.Refusal(reason=reason, task=sent.task, round=sent.round)
            self._answer(key, pb.ToServer(refusal=refusal))
            return
        try:
            self._configure(sent)
        except wire.FrameError as error:
            self._fail(key, f"the settings do not fit a frame: {error}")
            return
        vector = offsets(sent)
        if device.ask is not None:
            self._fail(device.ask.key, "another question took its place")
        device.ask = Ask(key, kind, sent.task, sent.round, vector, DOWN_BITS, sent.head_kind)
        self._queue(device)

    def _configure(self, sent: pb.Broadcast) -> None:
        """What is the same in every round, under a number of its own."""
        if not sent.HasField("hyperparameters"):
            return
        body = pb.Broadcast(hyperparameters=sent.hyperparameters).SerializeToString()
        if body != self._config.body:
            config = wire.Config(self._config.number % 255 + 1, body)
            wire.pack_down(config)
            self._config = config

    def _queue(self, device: DeviceState) -> None:
        """Queue a downlink, one at a time, as the gateway's share of the air allows."""
        if device.queued:
            return
        frame = device.next_frame(self._config)
        if frame is None:
            return
        self._send(device, frame)

    def _send(self, device: DeviceState, frame: wire.Config | wire.Told) -> None:
        now = self._clock()
        if device.queued or self._gateway.free_at() > now:
            if device not in self._waiting:
                self._waiting.append(device)
            return
        raw = wire.pack_down(frame)
        if self._chirpstack.queue(device.device, raw):
            device.queued = True
            seconds = frame_seconds(len(raw), up=False)
            self._gateway.sent(now, seconds)
            self._account.down(str(node_id(device.device)), len(raw), seconds)

    def _sent(self, device_eui: str) -> None:
        """A gateway has sent what was queued; whether it arrived, the next uplink says."""
        with self._changed:
            device = self._devices.get(device_eui)
            if device is not None:
                device.queued = False

    # Up.

    def _heard(self, uplink: Uplink) -> None:
        try:
            frame = wire.unpack_up(uplink.data)
        except wire.FrameError as error:
            self._refuse(uplink.device, "malformed", str(error))
            return
        seconds = frame_seconds(len(uplink.data), max(7, 12 - uplink.rate))
        with self._changed:
            device = self._devices.setdefault(uplink.device, DeviceState(uplink.device))
            self._account.up(str(node_id(uplink.device)), len(uplink.data), seconds)
            device.says(frame.seq, frame.config, self._clock())
            if isinstance(frame, wire.Announce):
                known = frame.task in device.announced
                device.announced[frame.task] = frame
                if not known:
                    text, many = "device %s: %s of task %d", how_many(frame.train, "image")
                    logger.info(text, device.device, many, frame.task)
            elif not device.announced:
                # This server is new, the device is not.
                self._send(device, wire.Config(0, b""))
            elif frame.kind != wire.Up.POLL:
                self._take(device, frame)
            if device.ask is not None:
                self._queue(device)
            waiting, self._waiting = self._waiting, []
            for other in waiting:
                self._queue(other)
            self._uplinks += 1
            self._changed.notify_all()

    def _take(self, device: DeviceState, frame: wire.Said) -> None:
        """An answer; a second one to the same question changes nothing."""
        ask = device.ask
        if ask is None or (ask.task, ask.round) != (frame.task, frame.round):
            return
        try:
            body = answer_to(ask, frame, device.announced[frame.task].bank)
        except DecodeError as error:
            self._refuse(device.device, "malformed", str(error))
            return
        if body is None:
            return
        device.ask = None
        self._answer(ask.key, body)

    def _answer(self, key: str, body: pb.ToServer) -> None:
        self._pending.answer(key, body)

    def _fail(self, key: str, text: str) -> None:
        self._pending.answer(key, Error(code=1, reason=text))

    def _refuse(self, device: str, reason: str, detail: str) -> None:
        with self._changed:
            self._refusals.append(
                Refusal(str(node_id(device)), None, 0, reason, f"{device}: {detail}")
            )
