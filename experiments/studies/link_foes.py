"""Ten ways to be a nuisance at the link: raw peers, with a certificate or without."""

from __future__ import annotations

import random
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from queue import Queue

import grpc

from protos import link_v1_pb2 as link
from protos.link import SERVICE, TALK

PATH = f"/{SERVICE}/{TALK}"
# What the attacks together hold open, and how many peers there are at once.
BARE, SLOW, AT_ONCE = 1500, 300, 10
MEGABYTE = 1 << 20


@dataclass(frozen=True)
class Site:
    """Where the server is, and the folder with the certificate of the one who attacks."""

    port: int
    certs: Path
    name: str = "evil"


class Peer:
    """A connection of its own with one stream, which sends whatever it is given."""

    def __init__(self, site: Site, first: bytes | None = None) -> None:
        """Open a stream; without ``first`` it says a proper Join."""
        keys = [
            site.certs / f"{name}" for name in ("ca.pem", f"{site.name}.key", f"{site.name}.pem")
        ]
        credentials = grpc.ssl_channel_credentials(*(path.read_bytes() for path in keys))
        options = [
            ("grpc.use_local_subchannel_pool", 1),
            ("grpc.max_send_message_length", -1),
        ]
        self.channel = grpc.secure_channel(f"localhost:{site.port}", credentials, options)
        self.over = threading.Event()
        self.welcome = threading.Event()
        self.waiting: Queue[bytes | None] = Queue()
        self.waiting.put(joining() if first is None else first)
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        with suppress(grpc.RpcError, ValueError):
            for _ in self.talk()(iter(self.waiting.get, None)):
                self.welcome.set()
        self.over.set()

    def talk(self) -> grpc.StreamStreamMultiCallable[bytes, bytes]:
        """What opens a stream."""
        return self.channel.stream_stream(PATH)

    def close(self) -> None:
        """End it."""
        self.waiting.put(None)
        self.channel.close()


def joining() -> bytes:
    """A Join of a process that has never been here."""
    join = link.Join(instance=random.getrandbits(32), attempt=1)
    return link.FromClient(join=join).SerializeToString()


def _one_after_another(site: Site, first: Callable[[], bytes | None], seconds: float) -> None:
    while True:
        peer = Peer(site, first())
        peer.over.wait(seconds)
        peer.close()


def nothing(site: Site) -> None:
    """Nobody attacks: what the other core has to do is no concern of the server's."""
    while True:
        sum(range(1000))


def garbage(site: Site) -> None:
    """Bytes that are no frame, on a new connection each time."""
    _one_after_another(site, lambda: random.randbytes(3000), 5)


def handshakes(site: Site) -> None:
    """TLS greetings without a certificate, which must fail, as fast as they go."""
    context = ssl.create_default_context(cafile=str(site.certs / "ca.pem"))
    context.set_alpn_protocols(["h2"])
    while True:
        with suppress(OSError), socket.create_connection(("127.0.0.1", site.port), 5) as plain:
            plain.settimeout(2)
            with context.wrap_socket(plain, server_hostname="localhost") as end:
                end.recv(100)


def streams(site: Site) -> None:
    """Streams of one identity that say nothing and are held, as many as there can be."""
    held = []
    while True:
        held.append(Peer(site, b""))
        time.sleep(0.02)


def first_frames(site: Site) -> None:
    """First frames of 4 MB, ten connections at once."""
    content = bytes(4 * MEGABYTE)
    while True:
        peers = [Peer(site, content) for _ in range(AT_ONCE)]
        ends = time.monotonic() + 3
        for peer in peers:
            peer.over.wait(max(0.0, ends - time.monotonic()))
            peer.close()


def tiny_frames(site: Site) -> None:
    """Empty frames on a stream that has joined, until it is cut; then again."""
    while True:
        peer = Peer(site)
        while not peer.over.is_set():
            for _ in range(200 if peer.waiting.qsize() < 2000 else 0):
                peer.waiting.put(b"")
            time.sleep(0.001)
        peer.close()


def large_frames(site: Site) -> None:
    """Frames of 4 MB and of 50 MB in turn, after a proper Join."""
    sizes = [4 * MEGABYTE, 50 * MEGABYTE]
    while True:
        for size in sizes:
            peer = Peer(site)
            peer.waiting.put(bytes(size))
            peer.over.wait(5)
            peer.close()


def rapid_reset(site: Site) -> None:
    """Streams of one connection, each taken back as soon as it is opened."""
    call = Peer(site).talk()
    while True:
        call(iter([joining()])).cancel()


def joins(site: Site) -> None:
    """A proper Join, each over a connection of its own, as often as it goes."""
    while True:
        peer = Peer(site)
        ends = time.monotonic() + 3
        while not (peer.over.is_set() or peer.welcome.is_set()) and time.monotonic() < ends:
            time.sleep(0.002)
        peer.close()


def joins_at_once(site: Site) -> None:
    """The same, ten at once."""
    for _ in range(AT_ONCE - 1):
        threading.Thread(target=joins, args=(site,), daemon=True).start()
    joins(site)


def _greeted(site: Site) -> ssl.SSLSocket:
    context = ssl.create_default_context(cafile=str(site.certs / "ca.pem"))
    context.load_cert_chain(site.certs / f"{site.name}.pem", site.certs / f"{site.name}.key")
    context.set_alpn_protocols(["h2"])
    plain = socket.create_connection(("127.0.0.1", site.port), 5)
    return context.wrap_socket(plain, server_hostname="localhost")


def _opening() -> bytes:
    """HTTP/2: the preface, no settings, and the head of a call of Talk."""
    fields = {
        b":path": PATH.encode(),
        b":authority": b"localhost",
        b"content-type": b"application/grpc",
        b"te": b"trailers",
    }
    head = b"\x83\x87" + b"".join(_literal(name, value) for name, value in fields.items())
    preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0"
    return preface + len(head).to_bytes(3, "big") + b"\x01\x04" + (1).to_bytes(4, "big") + head


def _literal(name: bytes, value: bytes) -> bytes:
    """A field of HPACK with nothing compressed."""
    return b"\0" + bytes([len(name)]) + name + bytes([len(value)]) + value


def slow_loris(site: Site) -> None:
    """Calls of Talk whose first frame comes one byte at a time, and what is cut is opened again."""
    held: list[ssl.SSLSocket] = []
    while True:
        while len(held) < SLOW:
            with suppress(OSError):
                end = _greeted(site)
                end.sendall(_opening())
                held.append(end)
        for end in held[:]:
            try:
                end.sendall(b"\0\0\1\0\0\0\0\0\1\0")
            except OSError:
                held.remove(end)
                end.close()
        time.sleep(0.5)


def bare_connections(site: Site) -> None:
    """TCP and not a byte more; what is cut is opened again."""
    held: list[socket.socket] = []
    while True:
        with suppress(OSError):
            while len(held) < BARE:
                held.append(socket.create_connection(("127.0.0.1", site.port), 3))
                held[-1].setblocking(False)
        held = list(_still_open(held))
        time.sleep(0.05)


def _still_open(held: list[socket.socket]) -> Iterator[socket.socket]:
    for end in held:
        try:
            if end.recv(1):
                yield end
            else:
                end.close()
        except BlockingIOError:
            yield end
        except OSError:
            end.close()


FOES: dict[str, Callable[[Site], None]] = {
    foe.__name__.replace("_", "-"): foe
    for foe in (
        nothing, garbage, handshakes, streams, first_frames, tiny_frames, large_frames, rapid_reset,
        joins, joins_at_once, slow_loris, bare_connections,
    )
}  # fmt: skip
