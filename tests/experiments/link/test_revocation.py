"""Revoked is revoked: at the next message, within a second, and where the list cannot be read."""

from __future__ import annotations

import logging
import os
import queue
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import grpc
import pytest
from flwr.app import Message

from client.link import ClientKeys
from experiments.command import certs
from protos import link_v1_pb2 as link
from protos.content import to_content
from protos.link import FETCH, SERVICE, TALK
from recast_core.errors import RecastError
from server.exchange.hush import Bucket
from server.link import ServerKeys, servicer, turnstile
from server.link.identity import node_id
from server.link.limits import SECONDS_TO_LEAVE, SECONDS_TO_LOOK
from server.link.revocations import Revocations, parse_revocations
from tests.experiments.ends import LONG, in_background

if TYPE_CHECKING:
    from conftest import Federation


class Peer:
    """A client with a certificate and a will of its own."""

    def __init__(self, here: Federation, name: str, *, reads: bool = True) -> None:
        keys = ClientKeys.load(here.certs, name)
        credentials = grpc.ssl_channel_credentials(keys.authority, keys.key, keys.certificate)
        # Without probes its window does not grow: what it has not read stays with the server.
        options = [("grpc.use_local_subchannel_pool", 1), ("grpc.http2.bdp_probe", 0)]
        self.channel = grpc.secure_channel(f"localhost:{here.port}", credentials, options)
        self.heard: list[link.FromServer] = []
        self.code: grpc.StatusCode | None = None
        self._out: queue.Queue[bytes | None] = queue.Queue()
        self.say(link.FromClient(join=link.Join(instance=1, attempt=1)))
        self._call = self.channel.stream_stream(f"/{SERVICE}/{TALK}")(iter(self._out.get, None))
        if reads:
            threading.Thread(target=self._read, daemon=True).start()

    def say(self, frame: link.FromClient) -> None:
        self._out.put(frame.SerializeToString())

    def fetch(self, sha256: bytes) -> Iterator[bytes]:
        request = link.FetchRequest(sha256=sha256).SerializeToString()
        found: Iterator[bytes] = self.channel.unary_stream(f"/{SERVICE}/{FETCH}")(
            request, timeout=LONG
        )
        return found

    def close(self) -> None:
        self._out.put(None)
        self.channel.close()

    def _read(self) -> None:
        try:
            for raw in self._call:
                self.heard.append(link.FromServer.FromString(raw))
        except grpc.RpcError as error:
            self.code = error.code()


@pytest.fixture
def peer() -> Iterator[Callable[..., Peer]]:
    made: list[Peer] = []

    def make(*of: object, **options: bool) -> Peer:
        made.append(Peer(*of, **options))  # type: ignore[arg-type]
        return made[-1]

    yield make
    for one in made:
        one.close()


def test_whoever_is_revoked_is_cut_within_a_second() -> None:
    assert SECONDS_TO_LOOK + SECONDS_TO_LEAVE < 1
    assert SECONDS_TO_LEAVE > 0


def test_who_fetches_nonsense_all_the_time_is_cut_like_anybody(
    federation: Callable[..., Federation],
    peer: Callable[..., Peer],
    wait_until: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(servicer, "SECONDS_TO_LEAVE", LONG)  # with a word, and not without
    # Of so many calls a flood would be made, which is not answered at all.
    monkeypatch.setattr(turnstile, "calls", lambda: Bucket(rate=0, burst=100_000))
    here = federation()
    evil = peer(here, "one")
    here.grid.wait_for_clients(1)
    stop = threading.Event()
    codes = []

    def poll() -> None:
        while not stop.is_set():
            try:
                list(evil.fetch(bytes(32)))
            except grpc.RpcError as error:
                codes.append(error.code())
            time.sleep(0.2)

    pollers = [threading.Thread(target=poll, daemon=True) for _ in range(3)]
    for thread in pollers:
        thread.start()
    wait_until(lambda: grpc.StatusCode.NOT_FOUND in codes)
    certs.revoke(here.certs, "one")
    wait_until(lambda: evil.code is not None)
    assert evil.code == grpc.StatusCode.PERMISSION_DENIED
    stop.set()
    for thread in pollers:
        thread.join(LONG)
    # Whether any of them has asked since is chance.
    with pytest.raises(grpc.RpcError) as refused:
        list(evil.fetch(bytes(32)))
    assert refused.value.code() == grpc.StatusCode.PERMISSION_DENIED
    assert list(here.grid.get_node_ids()) == []


def test_the_next_message_of_a_revoked_client_does_not_count(
    federation: Callable[..., Federation],
    peer: Callable[..., Peer],
    wait_until: Callable[..., None],
) -> None:
    here = federation()
    evil = peer(here, "one")
    here.grid.wait_for_clients(1)
    [key] = here.grid.push_messages([Message(to_content(b"abc"), node_id("one"), "train")])
    wait_until(lambda: any(frame.number == 1 for frame in evil.heard))
    certs.revoke(here.certs, "one")
    evil.say(link.FromClient(number=1, reply=b"mine"))
    here.grid.sessions.wait([key], seconds=LONG, grace=LONG)
    [reply] = here.grid.pull_messages([key])
    assert reply.has_error()
    assert reply.error.reason == "the certificate of one is revoked"


def test_a_revoked_client_is_not_waited_for_and_a_new_certificate_lets_it_in_again(
    federation: Callable[..., Federation], wait_until: Callable[..., None]
) -> None:
    here, go = federation(), threading.Event()
    one = here.join("one", lambda _, body: body if go.wait(LONG) else b"")
    here.join("two")
    here.grid.wait_for_clients(2)
    asked = in_background(lambda: here.ask(b"abc", "one", "two"))
    wait_until(lambda: one.asked)
    certs.revoke(here.certs, "one")
    refused, answer = asked.result(LONG)
    assert answer == b"cba"
    assert refused == "the certificate of one is revoked"
    assert list(here.grid.get_node_ids()) == [node_id("two")]
    assert isinstance(one.wait(), RecastError)
    assert here.ask(b"abc", "one", "two") == ["the certificate of one is revoked", b"cba"]
    go.set()
    certs.add(here.certs, "one", force=True)
    here.join("one")
    wait_until(lambda: len(list(here.grid.get_node_ids())) == 2)
    assert here.ask(b"abc", "one", "two") == [b"cba", b"cba"]


def test_who_does_not_read_and_who_is_downloading_are_cut_too(
    federation: Callable[..., Federation],
    peer: Callable[..., Peer],
    wait_until: Callable[..., None],
) -> None:
    here = federation()
    deaf, greedy = peer(here, "one", reads=False), peer(here, "two")
    here.grid.wait_for_clients(2)
    full = [Message(to_content(bytes(16_000)), node_id("one"), "query.other") for _ in range(40)]
    large = Message(to_content(bytes(8_000_000)), node_id("two"), "query.bank")
    here.grid.push_messages([*full, large])
    wait_until(lambda: any(frame.WhichOneof("body") == "reference" for frame in greedy.heard))
    chunks = greedy.fetch(greedy.heard[-1].reference.sha256)
    next(chunks)
    time.sleep(0.2)
    certs.revoke(here.certs, "one")
    certs.revoke(here.certs, "two")
    wait_until(lambda: all(s.stream is None for s in here.grid.sessions.all()))
    with pytest.raises(grpc.RpcError):
        list(chunks)
    assert deaf.code is None


@pytest.mark.parametrize("damage", ["a bad line", "no file"])
def test_where_the_list_cannot_be_read_nobody_speaks_until_it_can(
    federation: Callable[..., Federation],
    wait_until: Callable[..., None],
    caplog: pytest.LogCaptureFixture,
    damage: str,
) -> None:
    here = federation()
    one = here.join("one")
    here.grid.wait_for_clients(1)
    path = here.certs / "revoked.txt"
    with caplog.at_level(logging.ERROR, "recast.link"):
        if damage == "no file":
            path.unlink()
        else:
            path.write_text("12ab # two\nedge-3\n")
        wait_until(lambda: not any(s.stream for s in here.grid.sessions.all()))
        two = here.join("two")
        time.sleep(0.7)
        assert not any(s.stream for s in here.grid.sessions.all())
    assert here.ask(b"abc", timeout=0.2) == [None]
    said = [r.getMessage() for r in caplog.records if r.levelno == logging.ERROR]
    assert len(said) == 1
    assert "nobody may join or answer until this is mended" in said[0]
    assert ("line 2 starts with 'edge-3'" if damage == "a bad line" else "No such file") in said[0]
    path.write_text("")
    wait_until(lambda: sum(s.stream is not None for s in here.grid.sessions.all()) == 2)
    assert here.ask(b"abc", "one", "two") == [b"cba", b"cba"]
    assert one.ended is None
    assert two.ended is None


def test_a_server_does_not_start_without_a_list_that_can_be_read(tmp_path: Path) -> None:
    certs.init(tmp_path, ["localhost"], ["one"], force=False)
    ServerKeys.load(tmp_path)
    path = tmp_path / "revoked.txt"
    path.write_text("one\n")
    with pytest.raises(RecastError, match="line 1 starts with 'one'"):
        ServerKeys.load(tmp_path)
    path.unlink()
    with pytest.raises(RecastError, match=r"no .*revoked\.txt.*make an empty file"):
        ServerKeys.load(tmp_path)


def test_a_list_that_is_written_twice_in_one_tick_of_the_clock_is_read_twice(
    tmp_path: Path,
) -> None:
    path, found = tmp_path / "revoked.txt", Revocations(tmp_path / "revoked.txt")
    # Ahead of the clock, so that it is no matter how long this takes.
    tick = time.time_ns() + 3600 * 10**9
    for text, serial in (("aa", 0xAA), ("bb", 0xBB)):
        path.write_text(text)
        os.utime(path, ns=(tick, tick))
        assert found.revoked(serial)
        assert not found.revoked(0xCC)


def test_a_list_is_hexadecimal_numbers_with_or_without_colons_and_remarks() -> None:
    lines = ["", "# nobody", "ff # one, 2026-01-01", "  AB:0C  two", "0"]
    assert parse_revocations(lines) == {0xFF, 0xAB0C, 0}
    for bad in ("edge-1", "0x12", "-1", "1_0", "12;"):
        with pytest.raises(ValueError, match="line 2 starts with"):
            parse_revocations(["1", bad])
