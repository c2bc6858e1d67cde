"""How many calls one client, or one address, may have open at once."""

from __future__ import annotations

import ipaddress
from collections import Counter, OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar
from urllib.parse import unquote

from server.exchange.hush import KNOWN, Bucket
from server.link.limits import FILES, JOINING_AT_ONCE, TALKS_AT_ONCE, calls
from server.link.session import RefusedFrameError

T = TypeVar("T")


@dataclass(frozen=True)
class Peer:
    """The other end of a connection."""

    host: str
    port: int

    @classmethod
    def parse(cls, text: str) -> Peer:
        """From what gRPC calls it: ``ipv4:HOST:PORT``, or ``ipv6:%5BHOST%5D:PORT``."""
        address = unquote(text).partition(":")[2]
        host, _, port = address.rpartition(":")
        return cls.of(host, int(port) if port.isdecimal() else 0)

    @classmethod
    def of(cls, host: str, port: int) -> Peer:
        """An address as a socket tells it; IPv4 in the form of IPv6 is IPv4."""
        host = host.strip("[]").partition("%")[0]
        try:
            address = ipaddress.ip_address(host)
        except ValueError:
            return cls(host, port)
        mapped = getattr(address, "ipv4_mapped", None)
        return cls(str(mapped or address), port)


class Turnstile:
    """Counts open calls. On the event loop only.

    Attributes:
        joined: how many clients have joined over each connection.
        doomed: whoever asks too much over a connection, which nobody is to read from any more.
    """

    def __init__(self) -> None:
        """Nobody is inside."""
        self._talks: Counter[str] = Counter()
        self._joining: Counter[str] = Counter()
        self._calls: OrderedDict[str, Bucket] = OrderedDict()
        self.joined: Counter[Peer] = Counter()
        self.doomed: set[Peer] = set()

    def call(self, identity: str, peer: Peer) -> None:
        """Count a call of a client, or doom its connection where there are too many.

        To refuse one costs about as much as to serve it; a new connection costs the client as much
        as the server.

        Raises:
            RefusedFrameError: too many of late.
        """
        bucket = self._calls.pop(identity, None) or calls()
        self._calls[identity] = bucket
        if len(self._calls) > KNOWN:
            self._calls.popitem(last=False)
        if not bucket.take():
            if FILES.is_dir():  # else nobody would look at the connection, and take it off
                self.doomed.add(peer)
            raise RefusedFrameError("too-many-calls", "too many calls", retry=True)

    @contextmanager
    def talking(self, identity: str) -> Iterator[None]:
        """A stream of a client, from before its first frame is read to its end.

        Raises:
            RefusedFrameError: the client has as many already as it may have.
        """
        with _held(self._talks, identity, TALKS_AT_ONCE, "streams"):
            yield

    @contextmanager
    def joining(self, host: str) -> Iterator[None]:
        """A stream whose first frame has yet to come.

        Raises:
            RefusedFrameError: its address has as many already as it may have.
        """
        with _held(self._joining, host, JOINING_AT_ONCE, "joins"):
            yield

    @contextmanager
    def inside(self, peer: Peer) -> Iterator[None]:
        """A stream of a client that has joined."""
        with _held(self.joined, peer):
            yield


@contextmanager
def _held(counter: Counter[T], key: T, most: int | None = None, what: str = "") -> Iterator[None]:
    if most is not None and counter[key] >= most:
        raise RefusedFrameError("too-many-streams", f"too many {what} at once", retry=True)
    counter[key] += 1
    try:
        yield
    finally:
        counter[key] -= 1
        if counter[key] <= 0:
            del counter[key]
