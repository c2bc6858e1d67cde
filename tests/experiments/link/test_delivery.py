"""Each message is answered once, whatever the link does. Both ends are real, the cuts are too."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from flwr.app import Message

from protos.content import from_content, to_content
from protos.link import MAX_REPLY, MAX_STREAM_BODY
from recast_core.errors import RecastError
from server.link.identity import node_id
from tests.experiments.ends import LONG, in_background

if TYPE_CHECKING:
    from conftest import Federation

LARGE = b"".join(hashlib.sha256(n.to_bytes(4, "big")).digest() for n in range(40_000))


class Slow:
    """An application that works until it is told to finish."""

    def __init__(self) -> None:
        self.started, self.go = threading.Event(), threading.Event()

    def __call__(self, type_: str, body: bytes) -> bytes:
        self.started.set()
        assert self.go.wait(LONG)
        return body[::-1]


def digest(type_: str, body: bytes) -> bytes:
    return hashlib.sha256(body).digest()


def test_messages_of_every_kind_and_size_arrive_as_they_left(
    federation: Callable[..., Federation],
) -> None:
    here = federation()
    one, two = here.join("one"), here.join("two")
    here.grid.wait_for_clients(2)
    for type_ in ("query.hello", "query.bank", "train", "evaluate", "query.other"):
        for body in (b"", b"abc", bytes(MAX_STREAM_BODY)):
            replies = here.ask(body, "one", "two", type_=type_)
            assert replies == [body[::-1]] * 2
            assert one.asked[-1] == two.asked[-1] == (type_, body)
    assert one.settings == {"rounds": 3}


def test_an_answer_that_is_ready_while_the_link_is_cut_arrives_once(
    federation: Callable[..., Federation], wait_until: Callable[..., None]
) -> None:
    here, slow = federation(), Slow()
    relay = here.relay()
    one = here.join(handle=slow, port=relay.port)
    here.grid.wait_for_clients(1)
    answer = in_background(lambda: here.ask(b"abc"))
    assert slow.started.wait(LONG)
    relay.cut()
    slow.go.set()
    assert answer.result(LONG) == [b"cba"]
    assert one.asked == [("train", b"abc")]
    assert here.ask(b"def") == [b"fed"]
    assert len(one.asked) == 2
    assert not here.grid.sessions.refused


def test_an_answer_lost_on_the_way_is_sent_again_without_working_again(
    federation: Callable[..., Federation], wait_until: Callable[..., None]
) -> None:
    """The relay swallows what the client says, as a link that died without a word does."""
    here, slow = federation(), Slow()
    relay = here.relay()
    one = here.join(handle=slow, port=relay.port)
    here.grid.wait_for_clients(1)
    answer = in_background(lambda: here.ask(b"abc"))
    assert slow.started.wait(LONG)
    relay.deaf = True
    slow.go.set()
    wait_until(lambda: "answered" in one.events)
    time.sleep(0.1)
    relay.cut()
    relay.deaf = False
    assert answer.result(LONG) == [b"cba"]
    assert len(one.asked) == 1


def test_a_client_that_was_away_is_not_asked_what_a_later_message_replaced(
    federation: Callable[..., Federation], wait_until: Callable[..., None]
) -> None:
    here = federation()
    relay = here.relay()
    one = here.join(port=relay.port)
    here.grid.wait_for_clients(1)
    assert here.ask(b"abc") == [b"cba"]
    relay.blocked = True
    relay.cut()
    wait_until(lambda: here.grid.sessions.get("one").stream is None)
    first, second, other = (
        Message(to_content(body), node_id("one"), type_)
        for body, type_ in ((b"old", "train"), (b"new", "train"), (b"hi", "query.hello"))
    )
    [old] = here.grid.push_messages([first])
    keys = list(here.grid.push_messages([second, other]))
    relay.blocked = False
    wait_until(lambda: len(one.asked) == 3)
    here.grid.sessions.wait(keys, seconds=LONG, grace=LONG)
    assert list(here.grid.pull_messages([old])) == []
    assert sorted(from_content(reply) for reply in here.grid.pull_messages(keys)) == [b"ih", b"wen"]
    assert one.asked[1:] == [("train", b"new"), ("query.hello", b"hi")]


def test_a_message_pushed_while_a_client_is_away_is_delivered_when_it_returns(
    federation: Callable[..., Federation], wait_until: Callable[..., None]
) -> None:
    here = federation()
    relay = here.relay()
    here.join(port=relay.port)
    here.grid.wait_for_clients(1)
    assert here.ask(b"abc") == [b"cba"]
    relay.blocked = True
    relay.cut()
    wait_until(lambda: here.grid.sessions.get("one").stream is None)
    answer = in_background(lambda: here.ask(b"while away"))
    time.sleep(0.5)
    relay.blocked = False
    assert answer.result(LONG) == [b"yawa elihw"]


def test_a_round_waits_for_a_client_that_is_away_for_the_grace_and_no_longer(
    federation: Callable[..., Federation], wait_until: Callable[..., None]
) -> None:
    here = federation(tls=False, grace=0.6)
    began = here.grid.sessions.clock()
    passed = [0.0]  # the server's time goes on when it is told to
    here.grid.sessions.clock = lambda: began + passed[0]
    relay = here.relay()
    here.join("one", port=relay.port)
    two = here.join("two")
    here.grid.wait_for_clients(2)
    relay.blocked = True
    relay.cut()
    wait_until(lambda: here.grid.sessions.get("one").stream is None)
    passed[0] = 0.5
    assert len(list(here.grid.get_node_ids())) == 2
    answer = in_background(lambda: here.ask(b"abc", "one", "two", timeout=60.0))
    wait_until(lambda: "answered" in two.events)
    time.sleep(0.7)
    assert not answer.done()
    passed[0] = 0.7
    assert answer.result(LONG) == [None, b"cba"]
    assert len(list(here.grid.get_node_ids())) == 1


def test_an_answer_after_the_deadline_changes_nothing(
    federation: Callable[..., Federation], wait_until: Callable[..., None]
) -> None:
    here, slow = federation(tls=False), Slow()
    began = here.grid.sessions.clock()
    here.grid.sessions.clock = lambda: began + 0.4 * slow.started.is_set()
    here.join(handle=slow)
    here.grid.wait_for_clients(1)
    assert here.ask(b"abc", timeout=0.3) == [None]
    slow.go.set()
    wait_until(lambda: here.grid.sessions.refused["stray"] == 1)
    assert here.ask(b"def") == [b"fed"]


def test_a_cut_download_goes_on_where_it_stopped_also_in_a_new_process(
    federation: Callable[..., Federation], wait_until: Callable[..., None], tmp_path: Path
) -> None:
    here = federation()
    relay = here.relay()
    # What is on its way when the link is cut is lost, more or less of it, and is fetched again.
    relay.cut_after, relay.hold_after = 400_000, 900_000
    one = here.join(handle=digest, port=relay.port)
    here.grid.wait_for_clients(1)
    answer = in_background(lambda: here.ask(LARGE, type_="query.bank"))
    wait_until(lambda: one.events.count("connected") == 2)
    folder = tmp_path / "one" / "link"
    wait_until(lambda: sum(part.stat().st_size for part in folder.glob("*.part")) > 400_000)
    relay.blocked = True
    relay.cut()
    one.stop()
    (part,) = folder.glob("*.part")
    assert LARGE.startswith(part.read_bytes())
    have = part.stat().st_size
    # A relay of its own: on the old one bytes of the old connection may still arrive.
    fresh = here.relay()
    again = here.join(handle=digest, port=fresh.port)
    assert answer.result(LONG) == [digest("", LARGE)]
    assert fresh.down < len(LARGE) - have + 40_000
    assert again.asked == [("query.bank", LARGE)]
    assert not list((tmp_path / "one" / "link").glob("*.part"))
    assert not list((tmp_path / "one" / "link").glob("*.body"))


def test_a_body_damaged_on_disk_is_fetched_again(
    federation: Callable[..., Federation], tmp_path: Path
) -> None:
    here = federation(tls=False)
    folder = tmp_path / "one" / "link"
    folder.mkdir(parents=True)
    (folder / f"{hashlib.sha256(LARGE).hexdigest()}.part").write_bytes(b"x" * 1000)
    one = here.join(handle=digest)
    here.grid.wait_for_clients(1)
    assert here.ask(LARGE, type_="query.bank") == [digest("", LARGE)]
    assert one.asked == [("query.bank", LARGE)]


def test_the_newest_stream_of_a_name_wins_and_the_older_process_is_told(
    federation: Callable[..., Federation], wait_until: Callable[..., None]
) -> None:
    here = federation()
    older = here.join("one", lambda type_, body: b"older")
    here.grid.wait_for_clients(1)
    assert here.ask(b"") == [b"older"]
    here.join("one", lambda type_, body: b"newer")
    error = older.wait()
    assert isinstance(error, RecastError)
    assert "another process joined as 'one'" in str(error)
    assert here.ask(b"") == [b"newer"]


def test_an_application_that_crashes_is_an_error_reply_and_the_client_goes_on(
    federation: Callable[..., Federation],
) -> None:
    here = federation(tls=False)
    here.join(handle=lambda type_, body: bytes([1 // len(body)]))
    here.grid.wait_for_clients(1)
    assert here.ask(b"") == ["ZeroDivisionError: integer division or modulo by zero"]
    assert here.ask(b"a") == [b"\x01"]


def test_an_answer_that_is_too_large_stays_at_the_client(
    federation: Callable[..., Federation],
) -> None:
    here = federation(tls=False)
    one = here.join(handle=lambda type_, body: bytes(MAX_REPLY + len(body)))
    here.grid.wait_for_clients(1)
    assert here.ask(b"?") == [f"an answer of {MAX_REPLY + 1} bytes"]
    assert one.events.count("connected") == 1


def test_the_end_of_the_run_ends_its_clients(federation: Callable[..., Federation]) -> None:
    here = federation()
    one = here.join()
    here.grid.wait_for_clients(1)
    here.grid.end(finished=True)
    assert one.wait() == "finished"


@pytest.mark.parametrize("tls", [False, True])
def test_a_client_finds_a_server_that_was_restarted(
    federation: Callable[..., Federation], wait_until: Callable[..., None], tls: bool
) -> None:
    here = federation(tls)
    relay = here.relay()
    one = here.join(port=relay.port)
    here.grid.wait_for_clients(1)
    assert here.ask(b"abc") == [b"cba"]
    here.restart()
    relay.to = here.port
    here.grid.wait_for_clients(1)
    assert here.ask(b"def") == [b"fed"]
    assert len(one.asked) == 2
