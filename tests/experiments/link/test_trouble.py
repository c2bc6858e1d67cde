"""A full disk, a late answer, a clock that is wrong, a stranger: what the link makes of them."""

from __future__ import annotations

import datetime
import errno
import hashlib
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import grpc
import pytest
from flwr.app import Message

from client.link import ClientKeys, Endpoint
from client.link.fetch import PartFile
from experiments.command import certs
from protos import link_v1_pb2 as link
from protos.content import from_content, to_content
from protos.link import FETCH, SERVICE, TALK, out_of_date
from recast_core.errors import RecastError
from server.exchange.observer import LogObserver
from server.exchange.traffic import Traffic
from server.link import ServerKeys
from server.link.identity import node_id
from server.record.ledger import Ledger
from server.record.registry import Registry
from tests.experiments.ends import LONG

if TYPE_CHECKING:
    from conftest import Federation

LARGE = b"".join(hashlib.sha256(n.to_bytes(4, "big")).digest() for n in range(20_000))


def test_a_full_disk_is_said_at_once_and_the_download_goes_on_when_there_is_room(
    federation: Callable[..., Federation], monkeypatch: pytest.MonkeyPatch
) -> None:
    here = federation(tls=False)
    one, two = here.join("one", lambda _, body: b"ok"), here.join("two", lambda _, body: b"ok")
    here.grid.wait_for_clients(2)
    room, append = threading.Event(), PartFile.append

    def into_a_full_disk(part: PartFile, content: bytes) -> None:
        if not room.is_set() and "one" in part._part.parts and part.offset > 200_000:
            raise OSError(errno.ENOSPC, "No space left on device")
        append(part, content)

    monkeypatch.setattr(PartFile, "append", into_a_full_disk)
    refused, stored = here.ask(LARGE, "one", "two", type_="query.bank")
    assert stored == b"ok"
    assert "No space left on device; make room on that disk" in refused
    assert here.ask(b"abc", "one", "two") == [b"ok", b"ok"]
    room.set()
    assert here.ask(LARGE, "one", type_="query.bank") == [b"ok"]
    assert one.asked[-1] == ("query.bank", LARGE)
    assert here.grid.sessions.get("one").down < len(LARGE) + 200_000
    assert one.events.count("connected") == two.events.count("connected") == 1


def test_a_disk_that_was_full_many_times_leaves_no_slot_taken_and_heals(
    federation: Callable[..., Federation],
    monkeypatch: pytest.MonkeyPatch,
    wait_until: Callable[..., None],
) -> None:
    here = federation(tls=False)
    one = here.join("one", lambda _, body: b"ok")
    here.grid.wait_for_clients(1)
    full = [True]

    def append(part: PartFile, content: bytes) -> None:
        if full[0]:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(part, content)

    real = PartFile.append
    monkeypatch.setattr(PartFile, "append", append)
    for _ in range(6):
        (refused,) = here.ask(LARGE, type_="query.bank")
        assert "make room on that disk" in refused
        session = here.grid.sessions.get("one")
        wait_until(lambda session=session: session.fetching == 0)
    full[0] = False
    assert here.ask(LARGE, type_="query.bank") == [b"ok"]
    assert not here.grid.sessions.refused
    assert one.events.count("connected") == 1


def test_an_answer_that_is_ready_after_its_client_has_ended_is_dropped_without_a_word(
    federation: Callable[..., Federation],
    wait_until: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    here, go, failed = federation(tls=False), threading.Event(), []
    monkeypatch.setattr(threading, "excepthook", failed.append)
    one = here.join("one", lambda _, body: body[: go.wait(LONG)])
    here.grid.wait_for_clients(1)
    here.grid.push_messages([Message(to_content(b"abc"), node_id("one"), "train")])
    wait_until(lambda: one.link.busy)
    one.stop()
    go.set()
    wait_until(lambda: not one.link.busy)
    time.sleep(0.05)
    assert failed == []


def test_a_download_whose_client_goes_away_frees_its_slot(
    federation: Callable[..., Federation], wait_until: Callable[..., None]
) -> None:
    here, leave = federation(tls=False), threading.Event()
    body = bytes(8_000_000)

    def saying() -> Iterator[bytes]:
        join = link.Join(instance=1, attempt=1, name="one")
        yield link.FromClient(join=join).SerializeToString()
        leave.wait(LONG)

    with grpc.insecure_channel(f"localhost:{here.port}") as channel:
        stream = channel.stream_stream(f"/{SERVICE}/{TALK}")(saying())
        here.grid.wait_for_clients(1)
        here.grid.push_messages([Message(to_content(body), node_id("one"), "query.bank")])
        session = here.grid.sessions.get("one")
        request = link.FetchRequest(sha256=hashlib.sha256(body).digest(), name="one")
        options = [("grpc.use_local_subchannel_pool", 1)]
        for _ in range(4):
            with grpc.insecure_channel(f"localhost:{here.port}", options) as another:
                method = another.unary_stream(f"/{SERVICE}/{FETCH}")
                next(method(request.SerializeToString()))
                assert session.fetching == 1
            wait_until(lambda: session.fetching == 0)
        leave.set()
        stream.cancel()


def test_what_a_clients_application_says_is_one_line_that_can_be_seen(
    federation: Callable[..., Federation],
) -> None:
    def crash(type_: str, body: bytes) -> bytes:
        raise ValueError("\x1b[2J\x1b[31mOWNED\x1b[0m\r\nINFO fake\x00end")

    here = federation(tls=False)
    here.join(handle=crash)
    here.grid.wait_for_clients(1)
    assert here.ask(b"") == ["ValueError: OWNED INFO fake end"]


def test_a_memory_that_cannot_be_written_does_not_end_the_client(
    federation: Callable[..., Federation], tmp_path: Path
) -> None:
    here = federation(tls=False)
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "link").write_text("a file where a folder should be")
    here.join("one")
    here.grid.wait_for_clients(1)
    assert here.ask(b"abc") == [b"cba"]


def test_an_answer_to_the_message_before_can_still_be_pulled_but_is_not_asked_for_again(
    federation: Callable[..., Federation], wait_until: Callable[..., None]
) -> None:
    here, go = federation(tls=False), threading.Event()
    one = here.join(handle=lambda _, body: body[::-1] if go.wait(LONG) else b"")
    here.grid.wait_for_clients(1)
    first, second, third = (
        Message(to_content(body), node_id("one"), "train") for body in (b"ab", b"cd", b"ef")
    )
    [late] = here.grid.push_messages([first])
    wait_until(lambda: one.asked)
    [next_] = here.grid.push_messages([second])
    go.set()
    here.grid.sessions.wait([late, next_], seconds=LONG, grace=LONG)
    replies = here.grid.pull_messages([late, next_])
    assert [from_content(reply) for reply in replies] == [b"ba", b"dc"]
    assert not here.grid.sessions.refused
    here.grid.push_messages([third])


def test_what_the_link_refuses_is_in_the_registry_with_the_client_and_the_reason(
    federation: Callable[..., Federation], wait_until: Callable[..., None], tmp_path: Path
) -> None:
    here = federation()
    one = here.join("one")
    here.join("two")
    here.grid.wait_for_clients(2)
    certs.revoke(here.certs, "one")
    here.ask(b"abc", "two")
    assert isinstance(one.wait(), RecastError)
    keys = ClientKeys.load(here.certs, "two")
    credentials = grpc.ssl_channel_credentials(keys.authority, keys.key, keys.certificate)
    with grpc.secure_channel(f"localhost:{here.port}", credentials) as channel:
        frame = link.FromClient(number=1, reply=b"x").SerializeToString()
        with pytest.raises(grpc.RpcError):
            list(channel.stream_stream(f"/{SERVICE}/{TALK}")(iter([frame]), timeout=LONG))
    with Registry(tmp_path / "registry.sqlite") as registry:
        run = registry.start_run({}, bytes(32), {})
        ledger = Ledger(registry)
        traffic = Traffic(ledger, LogObserver())
        traffic.take_from(here.grid)
        traffic.take_from(here.grid)
        registry.record_traffic(run, ledger.drain(), ledger.drain_refusals())
        found = registry.refusals(run)
    assert {refusal.reason for refusal in found} == {"denied", "garbage"}
    denied = next(refusal for refusal in found if refusal.reason == "denied")
    assert denied.client == str(node_id("one"))
    assert denied.detail.startswith("one: the certificate of one has been revoked")


def test_certificates_that_a_wrong_clock_takes_for_invalid_are_said_to_be_the_clocks_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Later(datetime.datetime):
        @classmethod
        def now(cls, tz: datetime.tzinfo | None = None) -> datetime.datetime:
            return datetime.datetime.now(tz) + datetime.timedelta(days=4000)

    real = datetime.datetime
    with monkeypatch.context() as patch:
        patch.setattr(certs, "datetime", _Module(Later))
        certs.init(tmp_path, ["localhost"], ["one"], force=False)
    with pytest.raises(RecastError, match=r"server\.pem is valid from .* set the clock"):
        ServerKeys.load(tmp_path)
    doubt = Endpoint("localhost:1", ClientKeys.load(tmp_path, "one")).doubt()
    assert doubt is not None
    assert doubt.startswith("one.pem is valid from")
    assert "set the clock" in doubt
    pem = {"one.pem": (tmp_path / "one.pem").read_bytes()}
    now = real.now(datetime.UTC)
    assert out_of_date(pem, now + datetime.timedelta(days=4001)) is None
    expired = out_of_date(pem, now + datetime.timedelta(days=9000))
    assert expired is not None
    assert "make the certificate again" in expired


class _Module:
    """The datetime module with another clock."""

    UTC, timedelta = datetime.UTC, datetime.timedelta

    def __init__(self, clock: type[datetime.datetime]) -> None:
        self.datetime = clock
