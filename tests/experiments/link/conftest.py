"""Both ends of the link in one process, with a relay between them that counts and cuts."""

from __future__ import annotations

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
from client.link import ClientKeys, Endpoint, LinkClient
from experiments.command import certs
from recast_core.closing import Closing
from recast_core.setting_values import Value
from server.flower import server_identity
from server.link import LinkGrid, ServerKeys
from tests.experiments.ends import LONG, App, Client, Handle, answers, settled


class Relay(Closing):
    """Listens on loopback and relays to ``port``. ``up`` and ``down`` are bytes of TCP payload.

    ``passed`` has each piece in order: which way it went, and how large it was.

    Connections end once ``cut_after`` bytes went down, and no more go down after ``hold_after``.
    """

    def __init__(self, port: int) -> None:
        self.up = self.down = self.connections = 0
        self.passed: list[tuple[str, int]] = []
        self.cut_after: int | None = None
        self.hold_after: int | None = None
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

    @property
    def _full(self) -> bool:
        return self.open and self.hold_after is not None and self.down >= self.hold_after

    def cut(self) -> None:
        """End every connection."""
        pairs, self._pairs = self._pairs, []
        for pair in pairs:
            for end in pair:
                with contextlib.suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)
                end.close()

    def settled(self, seconds: float = 0.3) -> tuple[int, int]:
        """The counts once nothing has passed for a while."""
        found: tuple[int, int] = settled(lambda: (self.up, self.down), seconds)
        return found

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
                while way == "down" and self._full and sink.fileno() >= 0:
                    time.sleep(0.01)
                setattr(self, way, getattr(self, way) + len(content))
                self.passed.append((way, len(content)))
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


_turn = threading.Lock()


def _in_turn(message: Message, context: Context) -> Message:
    """The ClientApp, of one client at a time: while torch traces a model, it changes all modules of
    the process, in which clients are alone elsewhere."""
    with _turn:
        return app(message, context)


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
        handle: Handle = lambda type_, body: body[::-1],
        port: int | None = None,
        *,
        keys: ClientKeys | None = None,
        cache: Path | None = None,
        keepalive: float = 240,
        app: App | None = None,
        config: dict[str, Value] | None = None,
    ) -> Client:
        if keys is None and self.tls:
            keys = ClientKeys.load(self.certs, name)
        endpoint = Endpoint(f"localhost:{port or self.port}", keys, keepalive)
        cache = cache or self.folder / name
        client = Client(LinkClient, endpoint, name, cache, handle, app=app, config=config)
        self._stack.callback(client.stop)
        return client

    def take_part(self, name: str, data: Path, number: int, port: int | None = None) -> Client:
        """Join with the product's own ClientApp and a folder of data."""
        config: dict[str, Value] = {
            "data-dir": str(data), "cache-dir": str(self.folder / name), "client-number": number,
        }  # fmt: skip
        return self.join(name, port=port, app=_in_turn, config=config)

    def relay(self) -> Relay:
        return self._stack.enter_context(Relay(self.port))

    def ask(
        self, body: bytes, *names: str, type_: str = "train", timeout: float = LONG
    ) -> list[Any]:
        """The answers of these clients, in the order of their names."""
        return answers(self.grid, body, names or ("one",), type_, timeout)

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
