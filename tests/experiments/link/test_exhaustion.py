"""Whoever takes what there is of files, memory, log and streams keeps nobody else out."""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import logging
import resource
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from flwr.app import Message

from client.link import ClientKeys
from protos import link_v1_pb2 as link
from protos.content import to_content
from protos.link import CHUNK, FETCH, MAX_JOIN, SERVICE, TALK
from server.exchange.hush import Bucket, Hush
from server.link import doorkeeper, grid, listen, servicer, turnstile
from server.link.doorkeeper import raise_file_limit
from server.link.identity import node_id
from server.link.limits import FILES, TALKS_AT_ONCE
from server.link.turnstile import Peer
from tests.experiments.ends import LONG, settled

if TYPE_CHECKING:
    from conftest import Federation

# Longer than anything is waited for.
NEVER = 10 * LONG
JOIN = link.FromClient(join=link.Join(instance=1, attempt=1)).SerializeToString()


class Talk:
    """A stream over a channel of its own."""

    def __init__(self, here: Federation, keys: ClientKeys, *first: bytes) -> None:
        credentials = grpc.ssl_channel_credentials(keys.authority, keys.key, keys.certificate)
        options = [
            ("grpc.use_local_subchannel_pool", 1),
            ("grpc.max_send_message_length", -1),
        ]
        self.channel = grpc.secure_channel(f"localhost:{here.port}", credentials, options)
        self.code: grpc.StatusCode | None = None
        self.details = ""
        self._over = threading.Event()
        threading.Thread(target=self._run, args=(first,), daemon=True).start()

    def _run(self, first: tuple[bytes, ...]) -> None:
        def saying() -> Iterator[bytes]:
            yield from first
            self._over.wait(LONG)

        try:
            for _ in self.channel.stream_stream(f"/{SERVICE}/{TALK}")(saying()):
                pass
        except grpc.RpcError as error:
            self.code, self.details = error.code(), error.details()

    def close(self) -> None:
        self._over.set()
        self.channel.close()


@pytest.fixture
def talk() -> Iterator[Callable[..., Talk]]:
    made: list[Talk] = []

    def make(here: Federation, keys: ClientKeys, *first: bytes) -> Talk:
        made.append(Talk(here, keys, *first))
        return made[-1]

    yield make
    for one in made:
        one.close()


@pytest.mark.skipif(not FILES.is_dir(), reason="the system does not tell a process its sockets")
def test_connections_that_say_nothing_are_cut_and_clients_come_in_meanwhile(
    federation: Callable[..., Federation],
    monkeypatch: pytest.MonkeyPatch,
    wait_until: Callable[..., None],
) -> None:
    monkeypatch.setattr(grid, "WAITING_PER_ADDRESS", 16)
    monkeypatch.setattr(grid, "WAITING_AT_MOST", 16)
    for part in (doorkeeper, listen):  # neither cuts a connection for its age
        monkeypatch.setattr(part, "SECONDS_TO_JOIN", NEVER)
    here = federation()
    one = here.join("one")
    here.grid.wait_for_clients(1)
    held: list[socket.socket] = []

    def open_ones() -> int:
        for end in held[:]:
            with contextlib.suppress(BlockingIOError):
                with contextlib.suppress(ConnectionError):
                    if end.recv(1):
                        continue
                held.remove(end)
                end.close()
        return len(held)

    for _ in range(200):
        held.append(socket.create_connection(("127.0.0.1", here.port)))
        held[-1].setblocking(False)
    wait_until(lambda: open_ones() <= 16)
    here.join("two")
    here.grid.wait_for_clients(2)
    monkeypatch.setattr(doorkeeper, "SECONDS_TO_JOIN", 0.5)
    wait_until(lambda: open_ones() == 0)
    assert here.ask(b"abc", "one", "two") == [b"cba", b"cba"]
    assert one.events.count("connected") == 1


def test_a_client_that_has_not_joined_in_time_is_cut(
    federation: Callable[..., Federation], talk: Callable[..., Talk],
    monkeypatch: pytest.MonkeyPatch, wait_until: Callable[..., None],
) -> None:  # fmt: skip
    monkeypatch.setattr(doorkeeper, "SECONDS_TO_JOIN", 0.5)
    for part in (listen, servicer):
        monkeypatch.setattr(part, "SECONDS_TO_JOIN", NEVER)
    here = federation()
    silent = talk(here, ClientKeys.load(here.certs, "one"))
    wait_until(lambda: silent.code is not None)


@pytest.mark.skipif(not FILES.is_dir(), reason="the system does not tell a process its sockets")
def test_a_connection_over_which_streams_come_and_go_without_end_is_frozen_and_cut(
    federation: Callable[..., Federation], talk: Callable[..., Talk],
    monkeypatch: pytest.MonkeyPatch, wait_until: Callable[..., None],
) -> None:  # fmt: skip
    for part in (doorkeeper, servicer):  # that a cut one does not come again meanwhile
        monkeypatch.setattr(part, "SECONDS_TO_JOIN", NEVER)
    here = federation()
    here.join("two")
    here.grid.wait_for_clients(1)
    held = talk(here, ClientKeys.load(here.certs, "one"))
    call = held.channel.stream_stream(f"/{SERVICE}/{TALK}")

    def frozen() -> bool:
        call(iter([JOIN])).cancel()
        return here.grid.sessions.refused["too-many-calls"] > 0

    wait_until(frozen)
    seen = settled(here.grid.sessions.refused.total, 0.2)
    for _ in range(200):
        call(iter([JOIN])).cancel()
    time.sleep(0.3)
    assert here.grid.sessions.refused.total() <= seen + TALKS_AT_ONCE
    assert here.ask(b"abc", "two") == [b"cba"]
    assert held.code is None
    monkeypatch.setattr(doorkeeper, "SECONDS_TO_JOIN", 0.5)
    wait_until(lambda: held.code is not None)


def test_whoever_calls_too_often_is_not_told_at_once_so_as_to_come_again(
    federation: Callable[..., Federation], talk: Callable[..., Talk],
    monkeypatch: pytest.MonkeyPatch, wait_until: Callable[..., None],
) -> None:  # fmt: skip
    monkeypatch.setattr(turnstile, "calls", lambda: Bucket(rate=0, burst=1))
    monkeypatch.setattr(doorkeeper, "SECONDS_TO_JOIN", NEVER)
    monkeypatch.setattr(servicer, "SECONDS_OF_PENANCE", NEVER)
    here = federation()
    here.join("one")
    here.grid.wait_for_clients(1)
    hasty = talk(here, ClientKeys.load(here.certs, "one"))
    wait_until(lambda: here.grid.sessions.refused["too-many-calls"] > 0)
    time.sleep(0.8)
    assert hasty.code is None
    monkeypatch.setattr(doorkeeper, "SECONDS_TO_JOIN", 0.5)
    wait_until(lambda: hasty.code is not None)
    assert here.ask(b"abc", "one") == [b"cba"]


def test_one_certificate_has_some_streams_at_once_and_no_more(
    federation: Callable[..., Federation], talk: Callable[..., Talk],
    wait_until: Callable[..., None], monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    for part in (doorkeeper, listen, servicer):  # none of them ends before the last has come
        monkeypatch.setattr(part, "SECONDS_TO_JOIN", NEVER)
    here = federation()
    here.join("two")
    here.grid.wait_for_clients(1)
    keys = ClientKeys.load(here.certs, "one")
    streams = [talk(here, keys) for _ in range(12)]

    def refused() -> int:
        return sum(one.code == grpc.StatusCode.RESOURCE_EXHAUSTED for one in streams)

    wait_until(lambda: refused() == 12 - TALKS_AT_ONCE)
    time.sleep(0.2)
    assert refused() == 12 - TALKS_AT_ONCE
    assert here.ask(b"abc", "two") == [b"cba"]
    for one in streams:
        one.close()
    here.join("one")
    here.grid.wait_for_clients(2)


def test_many_clients_of_one_machine_are_no_crowd(
    federation: Callable[..., Federation],
) -> None:
    here = federation(tls=False)
    names = [f"edge-{number}" for number in range(12)]
    for name in names:
        here.join(name)
    here.grid.wait_for_clients(12)
    assert here.ask(b"abc", *names) == [b"cba"] * 12
    assert not here.grid.sessions.refused


def test_who_joins_all_the_time_waits_to_be_told_that_it_is_too_often(
    federation: Callable[..., Federation], talk: Callable[..., Talk],
    wait_until: Callable[..., None], monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(servicer, "SECONDS_OF_PENANCE", 0.5)
    here = federation()
    keys = ClientKeys.load(here.certs, "one")
    session, *_ = here.grid.sessions.join("one", 1, link.Join(instance=1), lambda: None)
    session.joins = Bucket(rate=0, burst=20)
    for number in range(2, 22):
        here.grid.sessions.join("one", 1, link.Join(instance=number), lambda: None)
    began = time.monotonic()
    late = talk(here, keys, JOIN)
    wait_until(lambda: late.code is not None)
    assert time.monotonic() - began > 0.5
    assert late.code == grpc.StatusCode.RESOURCE_EXHAUSTED


def test_a_first_frame_is_a_join_and_no_larger_than_one(
    federation: Callable[..., Federation], talk: Callable[..., Talk],
    wait_until: Callable[..., None],
) -> None:  # fmt: skip
    here = federation()
    keys = ClientKeys.load(here.certs, "one")
    padded = JOIN + b"\x7a" + bytes([MAX_JOIN // 2, 1]) + bytes(MAX_JOIN)
    small, large = talk(here, keys, padded), talk(here, keys, bytes(4 << 20))
    wait_until(lambda: small.code and large.code)
    assert small.code == grpc.StatusCode.INVALID_ARGUMENT
    assert large.code == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "larger than max" in large.details
    assert not here.grid.sessions.all()


def test_a_peer_that_is_refused_all_the_time_does_not_fill_the_log(
    federation: Callable[..., Federation], talk: Callable[..., Talk],
    wait_until: Callable[..., None], caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    here = federation()
    # Of which all 40 are one moment's.
    here.grid.sessions.hush = Hush(logging.getLogger("recast.link"), lambda: 0.0)
    keys = ClientKeys.load(here.certs, "one")
    with caplog.at_level(logging.INFO, "recast.link"):
        for _ in range(40):
            one = talk(here, keys, b"\xff\xff")
            wait_until(lambda one=one: one.code is not None)
            one.close()
    assert here.grid.sessions.refused["garbage"] == 40
    assert len([r for r in caplog.records if "garbage" in r.getMessage()]) <= 13


def test_a_body_is_not_sent_again_and_again(
    federation: Callable[..., Federation], talk: Callable[..., Talk],
) -> None:  # fmt: skip
    here = federation()
    one = talk(here, ClientKeys.load(here.certs, "one"), JOIN)
    here.grid.wait_for_clients(1)
    body = bytes(300_000)
    here.grid.push_messages([Message(to_content(body), node_id("one"), "query.bank")])
    method = one.channel.unary_stream(f"/{SERVICE}/{FETCH}")
    request = link.FetchRequest(sha256=hashlib.sha256(body).digest()).SerializeToString()
    fetched, code = 0, None
    for _ in range(20):
        try:
            for chunk in method(request, timeout=LONG):
                fetched += len(chunk)
        except grpc.RpcError as error:
            code = error.code()
            break
    assert code == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert 4 * len(body) <= fetched < 5 * len(body) + 64 * CHUNK
    assert here.grid.sessions.refused["too-many-fetches"] == 1


def test_a_certificate_that_does_not_say_that_it_is_for_clients_is_none(
    federation: Callable[..., Federation], talk: Callable[..., Talk],
    wait_until: Callable[..., None],
) -> None:  # fmt: skip
    here = federation()
    signer = serialization.load_pem_private_key((here.certs / "ca.key").read_bytes(), None)
    authority = (here.certs / "ca.pem").read_bytes()
    assert isinstance(signer, ec.EllipticCurvePrivateKey)
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.datetime.now(datetime.UTC)
    plain = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "one")]))
        .issuer_name(x509.load_pem_x509_certificate(authority).subject)
        .public_key(key.public_key())
        .serial_number(7)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .sign(signer, hashes.SHA256())
    )
    pem = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    keys = ClientKeys("one", pem, plain.public_bytes(serialization.Encoding.PEM), authority)
    stranger = talk(here, keys, JOIN)
    wait_until(lambda: stranger.code is not None)
    assert stranger.code == grpc.StatusCode.PERMISSION_DENIED
    assert stranger.details == "the certificate of one is not made for clients"


def test_the_soft_limit_of_files_is_raised_to_the_hard_one() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(512, soft), hard))
        raised = raise_file_limit()
        assert raised == resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        assert raised == min(hard, doorkeeper.MOST_FILES) if hard > 0 else doorkeeper.MOST_FILES
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("ipv4:127.0.0.1:80", "127.0.0.1", 80),
        ("ipv6:%5B::1%5D:9", "::1", 9),
        ("ipv6:%5B::ffff:10.0.0.1%5D:9", "10.0.0.1", 9),
        ("ipv6:%5Bfe80::1%25eth0%5D:9", "fe80::1", 9),
        ("unix:", "", 0),
    ],
)
def test_a_peer_is_the_same_whoever_tells_of_it(text: str, host: str, port: int) -> None:
    assert Peer.parse(text) == Peer(host, port)
    assert host == "" or Peer.of(f"::ffff:{host}" if "." in host else host, port).host == host
