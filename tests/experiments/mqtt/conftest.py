"""Both ends of a federation in one process, with a real broker and relays that count and cut."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from client.link import ClientKeys
from client.mqtt import ClientAccess, MqttClient
from experiments.command import certs
from experiments.command.broker import client_access, server_access
from experiments.measure import mosquitto
from experiments.measure.mosquitto import Mosquitto
from experiments.measure.processes import Processes
from experiments.measure.relay import Relay, Relays, free_port
from recast_core.setting_values import Value
from server.flower import server_identity
from server.link.web_bank import WebBank
from server.mqtt import MqttGrid
from tests.experiments.ends import LONG, App, Client, Handle, answers, patiently, settled

REASON = "no mosquitto on this machine: `apt-get install mosquitto`"


class Site:
    """A broker, a grid and whatever joined it; everything ends with the test."""

    def __init__(self, folder: Path, *, tls: bool, broker: bool, **options: Any) -> None:
        self.folder, self.tls, self.options = folder, tls, options
        self.certs = folder / "certs"
        if tls and not self.certs.exists():
            certs.init(self.certs, ["localhost"], ["serve", "one", "two", "three"], force=False)
        self._stack = contextlib.ExitStack()
        self._stack.enter_context(server_identity())
        processes = self._stack.enter_context(Processes(folder / "logs", {}))
        self.relays = self._stack.enter_context(Relays())
        self.port = free_port()
        self.broker = Mosquitto(folder, processes, self.port, secure=tls)
        if broker:
            self.broker.start()

    def url(self, port: int | None = None, base: str = "") -> str:
        return f"{'mqtts' if self.tls else 'mqtt'}://localhost:{port or self.port}{base}"

    def serve(self, bank: str | None = None, **options: Any) -> MqttGrid:
        """A server; one that is there already is as if killed, if it is not ended."""
        access = server_access(self.url(), self.certs, forced=False)
        grid = MqttGrid(
            access, {"rounds": 3}, bank=None if bank is None else WebBank(bank), **options
        )
        self._stack.callback(lambda: grid.end(finished=False))
        self.grid = grid
        return grid

    def relay(self) -> Relay:
        return self.relays.open(("127.0.0.1", self.port))

    def join(
        self,
        name: str = "one",
        handle: Handle = lambda type_, body: body[::-1],
        port: int | None = None,
        *,
        cache: Path | None = None,
        keepalive: float = 240,
        app: App | None = None,
        config: dict[str, Value] | None = None,
    ) -> Client:
        access = client_access(self.url(port), self.certs, name, keepalive=keepalive, forced=False)
        cache = cache or self.folder / name
        client = Client(MqttClient, access, name, cache, handle, app=app, config=config)
        self._stack.callback(client.stop)
        return client

    def ask(
        self, body: bytes, *names: str, type_: str = "train", timeout: float = LONG
    ) -> list[Any]:
        """The answers of these clients, in the order of their names."""
        return answers(self.grid, body, names or ("one",), type_, timeout)

    def raw(self, name: str) -> Raw:
        """Somebody at the broker who does as he likes, with the certificate of ``name``."""
        keys = ClientKeys.load(self.certs, name) if self.tls else None
        access = client_access(self.url(), self.certs, name, keepalive=60, forced=False)
        raw = Raw(self.port, access if keys else None, f"raw-{name}")
        self._stack.callback(raw.close)
        return raw

    def close(self) -> None:
        self._stack.close()


class Raw:
    """A plain MQTT client that remembers what came and what the broker said of it."""

    def __init__(self, port: int, access: ClientAccess | None, client_id: str) -> None:
        self.heard: list[tuple[str, bytes, bool]] = []
        self.codes: list[int] = []
        self._client = paho.Client(
            CallbackAPIVersion.VERSION2, client_id=client_id, protocol=paho.MQTTv5
        )
        if access is not None:
            assert access.tls is not None
            self._client.tls_set_context(access.tls)
        self._client.on_message = lambda c, u, m: self.heard.append((m.topic, m.payload, m.retain))
        self._client.on_subscribe = lambda c, u, m, codes, p: self.codes.extend(
            code.value for code in codes
        )
        self._client.on_publish = lambda c, u, m, code, p: self.codes.append(code.value)
        self._client.connect("localhost", port)
        self._client.loop_start()

    def subscribe(self, topic: str) -> int:
        """The broker's reason code."""
        return self._code(lambda: self._client.subscribe(topic, qos=1))

    def publish(self, topic: str, payload: bytes) -> int:
        """The broker's reason code."""
        return self._code(lambda: self._client.publish(topic, payload, qos=1))

    def catch_up(self) -> None:
        """Return once all has come that the broker had for a reader of ``recast/#`` by now."""
        mark = f"recast/mark/{len(self.codes)}"
        self.publish(mark, b"")
        patiently(lambda: any(topic == mark for topic, *_ in self.heard))

    def _code(self, act: Callable[[], object]) -> int:
        before = len(self.codes)
        act()
        patiently(lambda: len(self.codes) > before)
        return self.codes[-1]

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Callable[..., Site]]:
    if mosquitto.program() is None:
        pytest.skip(REASON)
    made: list[Site] = []

    def make(tls: bool = True, broker: bool = True, **options: Any) -> Site:
        made.append(Site(tmp_path, tls=tls, broker=broker, **options))
        return made[-1]

    logging.getLogger("flwr").setLevel(logging.ERROR)
    yield make
    for one in made:
        one.close()


@pytest.fixture
def site_of_one(site: Callable[..., Site]) -> Callable[..., tuple[Site, Client]]:
    """A site whose server has one client, ``one``, and that client."""

    def make(**options: Any) -> tuple[Site, Client]:
        here = site(**options)
        here.serve()
        client = here.join("one")
        here.grid.wait_for_clients(1)
        return here, client

    return make


@pytest.fixture
def quiet() -> Callable[[Relay], tuple[int, int]]:
    def counts(relay: Relay) -> tuple[int, int]:
        found = settled(relay.counted, 0.4)
        return found.up, found.down

    return counts
