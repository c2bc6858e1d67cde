"""A simulated LoRaWAN network between real devices' code, a real broker and the real bridge.

The model, of EU868 at DR0: an uplink is on the air as long as Semtech's formula says, in one of
eight channels at random; two at once in one channel are both lost; of the others a share is lost
besides. Class A: one downlink that was queued *before* an uplink came goes out in its receive
windows, and a share of these is lost; what is queued because of an uplink waits for the next. The
device keeps to its duty cycle. Time is the model's: training takes none of it.
"""

from __future__ import annotations

import base64
import heapq
import json
import random
import time
from collections import defaultdict, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion

from client.lorawan import Device
from protos.lorawan import PORT
from recast_core.airtime import frame_seconds

CHANNELS = 8
# For the bridge to answer an event, and for the server to average and ask on.
EVENT_SECONDS, ROUND_SECONDS = 5.0, 10.0


@dataclass(frozen=True)
class Loss:
    """Shares of frames that are lost, collisions apart."""

    up: float = 0.1
    down: float = 0.1


class Network:
    """ChirpStack's side of its MQTT integration, and the air behind it."""

    def __init__(
        self, port: int, application: str, devices: Mapping[str, Device], loss: Loss, seed: int
    ) -> None:
        """Connect to the broker at ``port``.

        Args:
            port: of this machine.
            application: its id.
            devices: by EUI.
            loss: of frames.
            seed: of what is lost, and when devices wake.
        """
        self._application, self._devices, self._loss = application, devices, loss
        self._dice = random.Random(seed)
        self._queues: dict[str, deque[bytes]] = defaultdict(deque)
        self._air: list[tuple[float, float, int, str]] = []
        self.now = 0.0
        self.lost = {"up": 0, "down": 0, "collisions": 0}
        self._client = paho.Client(
            CallbackAPIVersion.VERSION2, client_id="chirpstack", protocol=paho.MQTTv5
        )
        self._client.on_message = self._queued
        self._client.connect("127.0.0.1", port)
        self._client.loop_start()
        self._client.subscribe(f"application/{application}/device/+/command/down", qos=1)

    def close(self) -> None:
        """Leave the broker."""
        self._client.disconnect()
        self._client.loop_stop()

    def run(
        self, heard: Callable[[], int], asking: Callable[[], int], ended: Callable[[], bool]
    ) -> None:
        """Let time pass until ``ended()``.

        Args:
            heard: how many uplinks the bridge has taken.
            asking: how many devices it waits for.
            ended: whether the run is over.
        """
        order = [(self._dice.uniform(0, 60), eui) for eui in self._devices]
        heapq.heapify(order)
        while not ended():
            self.now, eui = heapq.heappop(order)
            before = heard()
            arrived = self._transmit(eui)
            if arrived:
                _until(lambda before=before: heard() > before or ended(), EVENT_SECONDS)  # type: ignore[misc]
            # Where nobody is asked the server is at work, which takes none of the air's time.
            _until(lambda: asking() > 0 or ended(), ROUND_SECONDS)
            device = self._devices[eui]
            wait = max(2.0, device.seconds_to_wait(self.now))
            heapq.heappush(order, (self.now + wait * self._dice.uniform(1.0, 1.1), eui))

    def _transmit(self, eui: str) -> bool:
        """One uplink, and what comes down after it; whether the uplink arrived."""
        device = self._devices[eui]
        frame = device.uplink(self.now)
        channel, end = self._dice.randrange(CHANNELS), self.now + frame_seconds(len(frame))
        self._air = [one for one in self._air if one[1] > self.now]
        collides = any(one[2] == channel for one in self._air)
        self._air.append((self.now, end, channel, eui))
        if collides or self._dice.random() < self._loss.up:
            self.lost["collisions" if collides else "up"] += 1
            return False
        downlink = self._queues[eui].popleft() if self._queues[eui] else None
        event = {
            "deviceInfo": {"applicationId": self._application, "devEui": eui},
            "dr": 0,
            "fPort": PORT,
            "confirmed": False,
            "data": base64.b64encode(frame).decode(),
        }
        self._event(eui, "up", event)
        if downlink is not None:
            self._event(eui, "txack", {"deviceInfo": event["deviceInfo"]})
            if self._dice.random() < self._loss.down:
                self.lost["down"] += 1
            else:
                device.take(downlink)
        return True

    def _event(self, eui: str, name: str, told: Mapping[str, object]) -> None:
        topic = f"application/{self._application}/device/{eui}/event/{name}"
        self._client.publish(topic, json.dumps(told), qos=1)

    def _queued(self, _c: object, _u: object, message: paho.MQTTMessage) -> None:
        told = json.loads(message.payload)
        assert told["fPort"] == PORT
        self._queues[message.topic.split("/")[3]].append(base64.b64decode(told["data"]))


def _until(condition: Callable[[], bool], seconds: float) -> None:
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.002)
