"""ChirpStack's MQTT integration: JSON events of devices, and the queue of their downlinks.

https://www.chirpstack.io/docs/chirpstack/integrations/mqtt.html: uplinks come at
``application/ID/device/DEVEUI/event/up``, a downlink is queued at ``.../command/down`` and goes out
after the device's next uplink (class A); ``event/txack`` says that a gateway has sent it.
"""

from __future__ import annotations

import base64
import binascii
import json
import logging
import queue
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass

from protos.lorawan import PORT
from protos.mqtt_broker import Broker, Heard, Lost
from protos.mqtt_faults import BrokerFaultError
from recast_core.backoff import Backoff
from recast_core.errors import RecastError
from server.mqtt.line import WAITS

logger = logging.getLogger("recast.lorawan")
_EUI = re.compile(r"[0-9a-f]{16}")
MakeBroker = Callable[[Heard, Lost], Broker]


@dataclass(frozen=True)
class Uplink:
    """A frame of a device, with its data rate."""

    device: str
    rate: int
    data: bytes


class Chirpstack:
    """The integration's topics of one application."""

    def __init__(
        self,
        application: str,
        make: MakeBroker,
        heard: Callable[[Uplink], None],
        sent: Callable[[str], None],
    ) -> None:
        """Prepare; ``open`` connects.

        Args:
            application: its id.
            make: a connection to the broker.
            heard: is told of uplinks, in the connection's own thread.
            sent: is told of devices whose downlink a gateway has sent.
        """
        self._application, self._make, self._heard_, self._sent = application, make, heard, sent
        self._broker: Broker | None = None
        self._faults: queue.SimpleQueue[BrokerFaultError | None] = queue.SimpleQueue()
        self._opened = threading.Event()
        self._closing = threading.Event()
        self.fault: RecastError | None = None
        self._thread = threading.Thread(target=self._run, name="recast-chirpstack", daemon=True)

    def open(self) -> None:
        """Connect, however long it takes.

        Raises:
            RecastError: waiting would not help.
        """
        self._thread.start()
        self._opened.wait()
        if self.fault is not None:
            raise self.fault

    def close(self) -> None:
        """End the connection."""
        self._closing.set()
        self._faults.put(None)
        self._thread.join(10)

    def queue(self, device: str, data: bytes) -> bool:
        """Have a downlink sent after the device's next uplink; whether the broker is there."""
        if self._broker is None:
            return False
        command = {
            "devEui": device,
            "confirmed": False,
            "fPort": PORT,
            "data": base64.b64encode(data).decode(),
        }
        topic = f"application/{self._application}/device/{device}/command/down"
        self._broker.publish(topic, json.dumps(command).encode())
        return True

    def _run(self) -> None:
        backoff = Backoff(*WAITS)
        while not self._closing.is_set():
            broker = self._make(self._heard, self._faults.put)
            try:
                broker.connect([(f"application/{self._application}/device/+/event/+", 1)])
            except BrokerFaultError as fault:
                if fault.permanent and not self._opened.is_set():
                    self.fault = RecastError(str(fault))
                    self._opened.set()
                    return
                logger.warning("no broker: %s; trying again", fault)
                self._closing.wait(backoff.next())
                continue
            backoff.reset()
            self._broker = broker
            self._opened.set()
            lost = self._faults.get()
            self._broker = None
            if lost is None:
                broker.flush(5.0)
                broker.close()
                return
            logger.warning("the broker is gone: %s; connecting again", lost)

    def _heard(self, topic: str, payload: bytes) -> None:
        words = topic.split("/")
        device, event = words[3], words[5]
        if not _EUI.fullmatch(device):
            logger.warning("%s names no device", topic[:120])
            return
        if event == "txack":
            self._sent(device)
        if event != "up":
            return
        try:
            told = json.loads(payload)
            port, rate = told.get("fPort", 0), int(told.get("dr", 0))
            data = base64.b64decode(told.get("data") or "", validate=True)
        except (ValueError, TypeError, AttributeError, binascii.Error) as error:
            logger.warning("an event of %s is none of ChirpStack's: %s", device, error)
            return
        if port == PORT and data:
            self._heard_(Uplink(device, rate, data))
