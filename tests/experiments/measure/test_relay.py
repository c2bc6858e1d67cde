"""The relay counts what a packet capture counts, and disturbs when told to."""

from __future__ import annotations

import itertools
import os
import shutil
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import pytest

from experiments.measure.relay import LOOPBACK, Counted, Relay, Relays, free_port
from tests.experiments.ends import LONG


class Echo:
    """A server that answers every piece with ``times`` copies of it."""

    def __init__(self, times: int = 1) -> None:
        self.times = times
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.address = self.socket.getsockname()
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                peer, _ = self.socket.accept()
            except OSError:
                return
            threading.Thread(target=self._answer, args=(peer,), daemon=True).start()

    def _answer(self, peer: socket.socket) -> None:
        try:
            with peer:
                while data := peer.recv(4096):
                    peer.sendall(data * self.times)
        except OSError:
            pass


@pytest.fixture
def echo() -> Iterator[Echo]:
    server = Echo(times=3)
    yield server
    server.socket.close()


@pytest.fixture
def relays() -> Iterator[Relays]:
    with Relays() as opened:
        yield opened


def connect(relay: Relay) -> socket.socket:
    return socket.create_connection(("127.0.0.1", relay.port), timeout=LONG)


def is_gone(peer: socket.socket) -> bool:
    """Whether the other end closed or reset the connection."""
    try:
        return peer.recv(10) == b""
    except ConnectionResetError:
        return True


def exchange(relay: Relay, size: int) -> bytes:
    """Send ``size`` bytes, then close that direction and read the answer to its end."""
    sent = os.urandom(size)

    def send(peer: socket.socket) -> None:
        peer.sendall(sent)
        peer.shutdown(socket.SHUT_WR)

    with connect(relay) as peer:
        sender = threading.Thread(target=send, args=(peer,))
        sender.start()
        received = bytearray()
        while data := peer.recv(65536):
            received += data
        sender.join()
    return bytes(received)


def test_both_directions_are_counted_and_phases_subtract(relays: Relays, echo: Echo) -> None:
    relay = relays.open(echo.address)
    assert relay.counted() == Counted(0, 0, 0)
    assert len(exchange(relay, 1000)) == 3000
    first = relay.counted()
    assert first == Counted(1000, 3000, 1)
    assert len(exchange(relay, 300_000)) == 900_000
    assert relay.counted() - first == Counted(300_000, 900_000, 1)
    assert first + (relay.counted() - first) == relay.counted()


def test_many_clients_are_counted_each_on_its_own(relays: Relays, echo: Echo) -> None:
    opened = [relays.open(echo.address) for _ in range(20)]
    with ThreadPoolExecutor(20) as pool:
        list(pool.map(exchange, opened, range(1000, 21000, 1000)))
    for relay, size in zip(opened, range(1000, 21000, 1000), strict=True):
        assert relay.counted() == Counted(size, 3 * size, 1)


def test_a_cut_ends_open_connections_and_later_ones_work(relays: Relays, echo: Echo) -> None:
    relay, other = relays.open(echo.address), relays.open(echo.address)
    with connect(relay) as peer, connect(other) as unharmed:
        peer.sendall(b"a")
        assert peer.recv(10) == b"aaa"
        relay.cut()
        assert is_gone(peer)
        unharmed.sendall(b"b")
        assert unharmed.recv(10) == b"bbb"
    assert exchange(relay, 10)
    assert relay.counted() == Counted(11, 33, 2)


def test_a_refusing_relay_lets_nothing_through_until_told(relays: Relays, echo: Echo) -> None:
    relay = relays.open(echo.address)
    relay.refuse()
    with connect(relay) as peer:
        assert is_gone(peer)
    assert relay.counted() == Counted()
    relay.refuse(False)
    assert len(exchange(relay, 10)) == 30


def test_a_delay_holds_both_directions_back(relays: Relays, echo: Echo) -> None:
    relay = relays.open(echo.address)
    relay.delay(0.2)
    with connect(relay) as peer:
        began = time.monotonic()
        peer.sendall(b"a")
        assert peer.recv(10) == b"aaa"
        assert time.monotonic() - began >= 0.4


def test_a_server_that_is_not_there_resets_the_client(relays: Relays, echo: Echo) -> None:
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))  # so that nobody else comes to listen there
        relay = relays.open(deaf.getsockname())
        with connect(relay) as peer:
            assert is_gone(peer)
    relay.retarget(echo.address)
    assert len(exchange(relay, 10)) == 30


def payload(capture: Path, port: int) -> Counted:
    """TCP payload of a capture (classic pcap, Ethernet), each sequence number counted once."""
    raw = capture.read_bytes()
    if len(raw) < 24:  # nothing has been written yet
        return Counted()
    assert raw[:4] == b"\xd4\xc3\xb2\xa1", "not a little-endian pcap file"
    position, spans, opened = 24, {}, set()
    while position + 16 <= len(raw):
        (length,) = struct.unpack_from("<I", raw, position + 8)
        if position + 16 + length > len(raw):  # it is being written
            break
        packet = raw[position + 16 : position + 16 + length]
        position += 16 + length
        total, header = struct.unpack_from(">H", packet, 16)[0], 4 * (packet[14] & 15)
        tcp = packet[14 + header : 14 + total]
        source, target, sequence = struct.unpack_from(">HHI", tcp)
        size = len(tcp) - 4 * (tcp[12] >> 4)
        if tcp[13] & 2 and target == port:
            opened.add(source)
        if size:
            spans.setdefault((source, target), set()).update(range(sequence, sequence + size))
    up = sum(len(seen) for (_, target), seen in spans.items() if target == port)
    down = sum(len(seen) for (source, _), seen in spans.items() if source == port)
    return Counted(up, down, len(opened))


def test_the_totals_are_those_of_a_packet_capture(
    relays: Relays, echo: Echo, tmp_path: Path
) -> None:
    tcpdump = shutil.which("tcpdump")
    if tcpdump is None:
        pytest.skip("tcpdump is not installed: apt-get install tcpdump")
    relay = relays.open(echo.address)
    path = tmp_path / "capture.pcap"
    capture = subprocess.Popen(
        [tcpdump, "-i", "lo", "-U", "-B", "16384", "-w", str(path), f"tcp port {relay.port}"],
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert capture.stderr is not None
        said = ""
        while "listening on" not in said:
            line = capture.stderr.readline()
            if not line:
                pytest.skip(f"capturing is not permitted here: {' '.join(said.split())}")
            said += line
        for size in (1, 1448, 100_000):
            assert len(exchange(relay, size)) == 3 * size
        wanted, deadline = relay.counted(), time.monotonic() + LONG
        while payload(path, relay.port) != wanted and time.monotonic() < deadline:
            time.sleep(0.1)
        found = payload(path, relay.port)
    finally:
        capture.terminate()
        rest = capture.communicate(timeout=LONG)[1]
    assert "\n0 packets dropped by kernel" in rest
    assert wanted == Counted(101_449, 304_347, 3)
    assert found == wanted


def test_a_port_that_one_was_given_is_given_to_no_other_before_it_is_used(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    port = free_port()
    drawn = itertools.chain([port, port], itertools.count(port + 1))
    chance = SimpleNamespace(randrange=lambda *_: next(drawn))
    monkeypatch.setattr("experiments.measure.relay.random.SystemRandom", lambda: chance)
    assert free_port() > port
    with socket.create_server((LOOPBACK, port)):
        pass
