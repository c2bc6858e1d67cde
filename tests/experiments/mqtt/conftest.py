"""Both ends of a federation in one process, with a real broker and relays that count and cut."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import paho.mqtt.client as paho
import pytest
from flwr.app import Context, Message
from paho.mqtt.enums import CallbackAPIVersion

from client.link import ClientKeys, LocalApp
from client.link.backoff import Backoff
from client.mqtt import ClientAccess, MqttClient
from experiments.command import certs
from experiments.command.broker import client_access, server_access
from experiments.measure import mosquitto
from experiments.measure.mosquitto import Mosquitto
from experiments.measure.processes import Processes
from experiments.measure.relay import Relay, Relays, free_port
from protos.content import from_content, to_content
from recast_core.setting_values import Value
from server.flower import server_identity
from server.link.identity import node_id
from server.link.web_bank import WebBank
from server.mqtt import MqttGrid

Handle = Callable[[str, bytes], bytes]
REASON = "no mosquitto on this machine: `apt-get install mosquitto`"


def patiently(condition: Callable[[], Any], seconds: float = 20) -> None:
    """Return as soon as ``condition()`` holds."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it never came to pass"
        time.sleep(0.01)


def settled(relay: Relay, seconds: float = 0.4) -> tuple[int, int]:
    """Up and down once nothing has passed for a while."""
    for _ in range(50):
        before = relay.counted()
        time.sleep(seconds)
        if relay.counted() == before:
            return before.up, before.down
    raise AssertionError("the link does not fall silent")


class Client:
    """An MqttClient on an event loop in a thread, with an application that is a function."""

    def __init__(
        self,
        access: ClientAccess,
        name: str,
        cache: Path,
        handle: Handle,
        app: Callable[[Message, Context], Message] | None,
        config: dict[str, Value],
    ) -> None:
        self.asked: list[tuple[str, bytes]] = []
        self.events: list[str] = []
        self.ended: BaseException | str | None = None
        self._ready = threading.Event()

        def own(message: Message, context: Context) -> Message:
            body = from_content(message)
            assert body is not None
            self.asked.append((message.metadata.message_type, body))
            answer = to_content(handle(message.metadata.message_type, body))
            return Message(answer, reply_to=message)

        self.link = MqttClient(
            access,
            name,
            LocalApp(app or own, config, cache),
            backoff=Backoff(0.05, 0.2),
            heard=self.events.append,
        )
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        self._ready.wait()

    def _run(self) -> None:
        async def go() -> None:
            self._loop = asyncio.get_running_loop()
            self._task = asyncio.ensure_future(self.link.run())
            self._ready.set()
            try:
                await self._task
                self.ended = "finished"
            except asyncio.CancelledError:
                self.ended = "stopped"
            except Exception as error:
                self.ended = error

        asyncio.run(go())

    def stop(self) -> None:
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._task.cancel)
        self._thread.join(10)
        assert not self._thread.is_alive()

    def wait(self) -> BaseException | str | None:
        self._thread.join(20)
        return self.ended


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
        app: Callable[[Message, Context], Message] | None = None,
        config: dict[str, Value] | None = None,
    ) -> Client:
        access = client_access(self.url(port), self.certs, name, keepalive=keepalive, forced=False)
        client = Client(access, name, cache or self.folder / name, handle, app, config or {})
        self._stack.callback(client.stop)
        return client

    def ask(self, body: bytes, *names: str, type_: str = "train", timeout: float = 20) -> list[Any]:
        """The answers of these clients, in the order of their names."""
        messages = [Message(to_content(body), node_id(name), type_) for name in names or ("one",)]
        replies = self.grid.send_and_receive(messages, timeout=timeout)
        found = {
            reply.metadata.src_node_id: reply.error.reason
            if reply.has_error()
            else from_content(reply)
            for reply in replies
        }
        return [found.get(node_id(name)) for name in names or ("one",)]

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
def wait_until() -> Callable[..., None]:
    return patiently


@pytest.fixture
def quiet() -> Callable[[Relay], tuple[int, int]]:
    return settled
