"""A relay that forwards a client's TCP connections, counts their bytes and can disturb them.

What is counted is TCP payload: everything that the two programs wrote to their sockets (TLS
records, headers, polling, heartbeats), without IP and TCP headers and without retransmissions.
"""

from __future__ import annotations

import asyncio
import bisect
import random
import socket
import threading
import time
from collections import deque
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any, Self, TypeVar

from recast_core.closing import Closing

Result = TypeVar("Result")
Address = tuple[str, int]

CHUNK = 1 << 16
LOOPBACK = "127.0.0.1"
# Linux's own; elsewhere they begin later.
FIRST_PORT, PORTS_TO_GIVE = 10_000, 32_768
MOST_KEPT = 64
_KEEPING = socket.SOCK_DGRAM
_kept: deque[socket.socket] = deque()


@dataclass(frozen=True, slots=True)
class Counted:
    """TCP payload since the relay was opened; differences of two are what passed in between.

    Attributes:
        up: bytes that the client sent.
        down: bytes that were sent to the client.
        connections: how many it opened.
    """

    up: int = 0
    down: int = 0
    connections: int = 0

    def __add__(self, other: Counted) -> Counted:
        return Counted(
            self.up + other.up, self.down + other.down, self.connections + other.connections
        )

    def __sub__(self, other: Counted) -> Counted:
        return Counted(
            self.up - other.up, self.down - other.down, self.connections - other.connections
        )


class Relay:
    """One client's way to its server. Made by :meth:`Relays.open`; safe to use from any thread."""

    def __init__(self, relays: Relays, target: Address) -> None:
        self._relays = relays
        self._target = target
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.StreamWriter] = set()
        self._up = self._down = self._connections = 0
        self._passed: list[tuple[int, Counted]] = []
        self._delay = 0.0
        self._refusing = False
        self.port = 0

    @property
    def address(self) -> str:
        """Where the client connects to, ``HOST:PORT``."""
        return f"{LOOPBACK}:{self.port}"

    def counted(self) -> Counted:
        """What has passed so far: keep it, and subtract it from a later one to count a phase."""
        return Counted(self._up, self._down, self._connections)

    def counted_at(self, moment: int) -> Counted:
        """What had passed at ``moment``, nanoseconds of ``time.time_ns``."""
        passed = self._passed
        index = bisect.bisect_right(passed, moment, key=lambda entry: entry[0])
        return passed[index - 1][1] if index else Counted()

    def cut(self) -> None:
        """Reset every open connection, as if the network had gone; new ones are accepted."""
        self._relays.call(self._cut())

    def refuse(self, refusing: bool = True) -> None:
        """Reset new connections at once, or accept them again; open ones go on."""
        self._refusing = refusing

    def delay(self, seconds: float) -> None:
        """Hold each piece of data back in either direction; 0 forwards at once again."""
        self._delay = seconds

    def retarget(self, target: Address) -> None:
        """Forward new connections to another server, as after it moved to another port."""
        self._target = target

    def close(self) -> None:
        """Stop listening and reset what is open."""
        self._relays.call(self._close())

    async def listen(self, port: int = 0) -> None:
        """Begin to accept connections, on a port of the system's choice where it is 0."""
        self._server = await asyncio.start_server(self._serve, LOOPBACK, port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _close(self) -> None:
        if self._server is not None:
            self._server.close()
        await self._cut()

    async def _cut(self) -> None:
        for writer in list(self._open):
            _reset(writer)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._refusing:
            _reset(writer)
            return
        self._connections += 1
        try:
            far_reader, far_writer = await asyncio.open_connection(*self._target)
        except OSError:
            _reset(writer)
            return
        ends = {writer, far_writer}
        self._open |= ends
        try:
            await asyncio.gather(
                self._pump(reader, far_writer, up=True), self._pump(far_reader, writer, up=False)
            )
        except OSError:
            for end in ends:
                _reset(end)
        finally:
            self._open -= ends
            for end in ends:
                end.close()

    async def _pump(
        self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, *, up: bool
    ) -> None:
        while data := await source.read(CHUNK):
            if up:
                self._up += len(data)
                self._note()
            if self._delay:
                await asyncio.sleep(self._delay)
            if sink.is_closing():
                raise ConnectionResetError
            if not up:
                self._down += len(data)
                self._note()
            sink.write(data)
            await sink.drain()
        if sink.can_write_eof():
            sink.write_eof()

    def _note(self) -> None:
        self._passed.append((time.time_ns(), self.counted()))


def _reset(writer: asyncio.StreamWriter) -> None:
    writer.transport.abort()


class Relays(Closing):
    """Many relays in one thread; a context manager that closes them all."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="relays", daemon=True)
        self._relays: list[Relay] = []

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def close(self) -> None:
        """End every relay, and the thread."""
        for relay in self._relays:
            relay.close()
        self.call(self._settle())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def open(self, target: Address, port: int = 0) -> Relay:
        """A relay to the server at ``target``, which need not listen yet."""
        relay = Relay(self, target)
        self.call(relay.listen(port))
        self._relays.append(relay)
        return relay

    def call(self, work: Coroutine[Any, Any, Result]) -> Result:
        """Run ``work`` on the relays' thread and wait for it."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    async def _settle(self) -> None:
        rest = asyncio.all_tasks() - {asyncio.current_task()}
        for task in rest:
            task.cancel()
        await asyncio.gather(*rest, return_exceptions=True)


def free_port() -> int:
    """A TCP port of the loopback interface that nobody uses, and that nobody is given by chance.

    The system gives ports from ``PORTS_TO_GIVE`` on to whoever connects or asks for any: one of
    those may be taken before who is meant to listen there does. So may one that is free by another
    caller of this: each keeps its latest ports for itself, by UDP sockets of the same numbers.
    """
    chance = random.SystemRandom()
    while True:
        port, kept = chance.randrange(FIRST_PORT, PORTS_TO_GIVE), socket.socket(type=_KEEPING)
        try:
            kept.bind((LOOPBACK, port))
            with socket.socket() as probe:
                probe.bind((LOOPBACK, port))
        except OSError:
            kept.close()
            continue
        _kept.append(kept)
        if len(_kept) > MOST_KEPT:
            _kept.popleft().close()
        return port
