"""Both ends of the link in one process, with a relay between them that counts and cuts."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from flwr.app import Context, Message

from client.app import app
from client.link import ClientKeys, Endpoint, LinkClient, LocalApp
from client.link.backoff import Backoff
from experiments.command import certs
from protos.content import from_content, to_content
from recast_core.closing import Closing
from recast_core.setting_values import Value
from server.flower import server_identity
from server.link import LinkGrid, ServerKeys
from server.link.identity import node_id


class Relay(Closing):
    """Listens on loopback and relays to ``port``. ``up`` and ``down`` are bytes of TCP payload."""

    def __init__(self, port: int) -> None:
        self.up = self.down = self.connections = 0
        self.cut_after: int | None = None
        self.open = True
        self.deaf = self.blocked = False
        self.to = port
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self.open = False
        self._listener.close()
        self.cut()

    @property
    def total(self) -> int:
        return self.up + self.down

    def cut(self) -> None:
        """End every connection."""
        pairs, self._pairs = self._pairs, []
        for pair in pairs:
            for end in pair:
                with contextlib.suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)
                end.close()

    def settled(self, seconds: float = 0.3, longest: float = 10) -> tuple[int, int]:
        """The counts once nothing has passed for a while."""
        end = time.monotonic() + longest
        while time.monotonic() < end:
            before = self.up, self.down
            time.sleep(seconds)
            if before == (self.up, self.down):
                return before
        raise AssertionError("the link does not fall silent")

    def _accept(self) -> None:
        while self.open:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            if not self.open:
                client.close()
                return
            if self.blocked:
                client.close()
                continue
            try:
                server = socket.create_connection(("127.0.0.1", self.to))
            except OSError:
                client.close()
                continue
            for end in (client, server):
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.connections += 1
            self._pairs.append((client, server))
            threading.Thread(target=self._pump, args=(client, server, "up"), daemon=True).start()
            threading.Thread(target=self._pump, args=(server, client, "down"), daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket, way: str) -> None:
        try:
            while content := source.recv(8192):
                setattr(self, way, getattr(self, way) + len(content))
                if not (self.deaf and way == "up"):
                    sink.sendall(content)
                if way == "down" and self.cut_after is not None and self.down >= self.cut_after:
                    self.cut_after = None
                    self.cut()
        except OSError:
            pass
        for end in (source, sink):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


def patiently(condition: Callable[[], Any], seconds: float = 20) -> None:
    """Return as soon as ``condition()`` holds."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it never came to pass"
        time.sleep(0.01)


class Client:
    """A LinkClient on an event loop in a thread, with an application that is a function."""

    def __init__(
        self,
        port: int,
        name: str,
        cache: Path,
        keys: ClientKeys | None,
        handle: Callable[[str, bytes], bytes] = lambda type_, body: body,
        keepalive: float = 240,
        *,
        app: Callable[[Message, Context], Message] | None = None,
        config: dict[str, Value] | None = None,
    ) -> None:
        self.asked: list[tuple[str, bytes]] = []
        self.events: list[str] = []
        self.ended: BaseException | str | None = None
        self._ready = threading.Event()
        endpoint = Endpoint(f"localhost:{port}", keys, keepalive)

        def own(message: Message, context: Context) -> Message:
            body = from_content(message)
            assert body is not None
            self.asked.append((message.metadata.message_type, body))
            self.settings = dict(context.run_config)
            return Message(
                to_content(handle(message.metadata.message_type, body)), reply_to=message
            )

        self.link = LinkClient(
            endpoint,
            name,
            LocalApp(app or own, config or {}, cache),
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


class Federation:
    """A grid, its certificates, and whatever joined it; everything ends with the test."""

    def __init__(
        self,
        folder: Path,
        tls: bool,
        *,
        made: bool = False,
        settings: Mapping[str, Value] | None = None,
        **options: float,
    ) -> None:
        self.folder, self.tls = folder, tls
        self.settings = settings or {"rounds": 3}
        self.certs = folder / "certs"
        if tls and not made:
            certs.init(self.certs, ["localhost", "127.0.0.1"], ["one", "two"], force=False)
        self._stack = contextlib.ExitStack()
        self._stack.enter_context(server_identity())
        self._options = options
        self._listen()
        self._stack.callback(lambda: self.grid.end(finished=False))

    def _listen(self) -> None:
        keys = ServerKeys.load(self.certs) if self.tls else None
        self.grid = LinkGrid("127.0.0.1:0", keys, self.settings, **self._options)
        self.port = int(self.grid.address.rpartition(":")[2])

    def restart(self) -> None:
        """Another server takes over, at another port."""
        self.grid.end(finished=False)
        self._listen()

    def join(
        self,
        name: str = "one",
        handle: Callable[[str, bytes], bytes] = lambda type_, body: body[::-1],
        port: int | None = None,
        *,
        keys: ClientKeys | None = None,
        cache: Path | None = None,
        **options: float,
    ) -> Client:
        if keys is None and self.tls:
            keys = ClientKeys.load(self.certs, name)
        cache = cache or self.folder / name
        client = Client(port or self.port, name, cache, keys, handle, **options)
        self._stack.callback(client.stop)
        return client

    def take_part(self, name: str, data: Path, number: int, port: int | None = None) -> Client:
        """Join with the product's own ClientApp and a folder of data."""
        keys = ClientKeys.load(self.certs, name) if self.tls else None
        cache = self.folder / name
        config = {"data-dir": str(data), "cache-dir": str(cache), "client-number": number}
        client = Client(port or self.port, name, cache, keys, app=app, config=config)
        self._stack.callback(client.stop)
        return client

    def relay(self) -> Relay:
        return self._stack.enter_context(Relay(self.port))

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

    def close(self) -> None:
        self._stack.close()


@pytest.fixture
def federation(tmp_path: Path) -> Iterator[Callable[..., Federation]]:
    made: list[Federation] = []

    def make(tls: bool = True, **options: Any) -> Federation:
        made.append(Federation(tmp_path, tls, **options))
        return made[-1]

    logging.getLogger("flwr").setLevel(logging.ERROR)
    yield make
    for one in made:
        one.close()


@pytest.fixture
def wait_until() -> Callable[..., None]:
    return patiently
