"""A broadcast is published once, an answer counts once, whatever becomes of the broker."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from client.link.fetch import PartFile
from protos import link_v1_pb2 as link
from recast_core.errors import RecastError
from server.link.identity import node_id
from tests.experiments.ends import LONG, in_background

if TYPE_CHECKING:
    from conftest import Client, Site


def test_what_is_the_same_for_all_is_published_once_and_kept_for_who_comes_later(
    site: Callable[..., Site], wait_until: Callable[..., None]
) -> None:
    here = site(tls=False)
    here.serve()
    spy = here.raw("spy")
    assert spy.subscribe("recast/#") < 0x80
    for name in ("one", "two", "three"):
        here.join(name)
    here.grid.wait_for_clients(3)
    assert here.ask(b"forward", "one", "two", "three") == [b"drawrof"] * 3
    spy.catch_up()
    mine = [(topic, kept) for topic, payload, kept in spy.heard if b"forward" in payload]
    assert mine == [("recast/all/0", False)]
    late = here.raw("late")
    late.subscribe("recast/all/#")
    wait_until(lambda: any(b"forward" in payload and kept for _, payload, kept in late.heard))


def test_what_few_are_to_have_is_sent_to_nobody_else(site: Callable[..., Site]) -> None:
    here = site(tls=False)
    here.serve()
    spy = here.raw("spy")
    spy.subscribe("recast/#")
    clients = [here.join(name) for name in ("one", "two", "three", "four")]
    here.grid.wait_for_clients(4)
    assert here.ask(b"forward", "two", "four") == [b"drawrof"] * 2
    spy.catch_up()
    topics = sorted(topic for topic, payload, _ in spy.heard if b"forward" in payload)
    assert topics == ["recast/down/four", "recast/down/two"]
    assert [len(client.asked) for client in clients] == [0, 1, 0, 1]


def test_whom_a_broadcast_does_not_concern_leaves_it_alone(
    site: Callable[..., Site], wait_until: Callable[..., None]
) -> None:
    here = site(tls=False)
    here.serve()
    clients = [here.join(name) for name in ("one", "two", "three")]
    here.grid.wait_for_clients(3)
    assert here.ask(b"forward", "one", "three") == [b"drawrof"] * 2
    newcomer = here.join("new")
    here.grid.wait_for_clients(4)
    assert here.ask(b"all", "one", "two", "three", "new") == [b"lla"] * 4
    assert [len(client.asked) for client in clients] == [2, 1, 2]
    assert [body for _, body in newcomer.asked] == [b"all"]


def test_a_client_that_was_away_gets_the_broadcast_from_the_broker(
    site: Callable[..., Site], wait_until: Callable[..., None]
) -> None:
    here = site(tls=False)
    here.serve()
    spy = here.raw("spy")
    relay = here.relay()
    here.join("one", port=relay.port)
    here.join("two")
    here.grid.wait_for_clients(2)
    relay.refuse()
    relay.cut()
    wait_until(lambda: here.grid.sessions.get("one").stream is None)  # its last will says so
    spy.subscribe("recast/#")
    threading.Timer(0.5, lambda: relay.refuse(False)).start()
    assert here.ask(b"forward", "one", "two") == [b"drawrof"] * 2
    spy.catch_up()
    topics = [topic for topic, payload, kept in spy.heard if b"forward" in payload and not kept]
    assert topics == ["recast/all/0"]


def test_an_update_that_the_broker_delivers_again_counts_once(
    site: Callable[..., Site], wait_until: Callable[..., None]
) -> None:
    here = site(tls=False)
    here.serve()
    spy = here.raw("spy")
    spy.subscribe("recast/up/one")
    here.join("one")
    here.grid.wait_for_clients(1)
    assert here.ask(b"forward") == [b"drawrof"]
    wait_until(lambda: any(b"drawrof" in payload for _, payload, _ in spy.heard))
    for _, payload, _ in list(spy.heard):
        spy.publish("recast/up/one", payload)
    assert here.ask(b"again") == [b"niaga"]
    reasons = [refusal.reason for refusal in here.grid.take_refusals()]
    assert set(reasons) == {"stray"}
    assert here.grid.sessions.get("one").stream is not None, "nobody is sent away for that"


@pytest.mark.parametrize("when", ["start", "middle"])
def test_a_broker_that_is_away_costs_time_and_no_message(
    site: Callable[..., Site], when: str
) -> None:
    here = site(tls=True, broker=when == "middle")
    working, away = threading.Event(), threading.Event()

    def slowly(type_: str, body: bytes) -> bytes:
        working.set()
        assert away.wait(LONG)
        return body[::-1]

    def starts() -> None:
        away.set()
        time.sleep(1)
        here.broker.start()

    def breaks() -> None:
        assert working.wait(LONG)
        here.broker.kill()
        starts()

    if when == "start":
        here.join("one", slowly)
        broker = in_background(starts)
        here.serve()
    else:
        here.serve()
        here.join("one", slowly)
        broker = in_background(breaks)
    here.grid.wait_for_clients(1)
    assert here.ask(b"forward") == [b"drawrof"]
    assert here.ask(b"again") == [b"niaga"]
    broker.result(LONG)


def test_a_server_process_that_takes_over_is_joined_by_all_and_a_third_is_told(
    site: Callable[..., Site], wait_until: Callable[..., None]
) -> None:
    here = site(tls=False)
    first = here.serve()
    client = here.join("one")
    first.wait_for_clients(1)
    assert here.ask(b"forward") == [b"drawrof"]
    second = here.serve()
    second.wait_for_clients(1)
    assert here.ask(b"again") == [b"niaga"]

    said: list[str] = []

    def gives_up() -> bool:
        try:
            first.get_node_ids()
        except RecastError as error:
            said.append(str(error))
        return bool(said)

    wait_until(gives_up)
    assert "another server took the topics recast/…: stop one" in said[0]
    assert here.ask(b"once more") == [b"erom ecno"]
    assert client.ended is None


def test_a_second_process_of_a_name_ends_the_first(
    site_of_one: Callable[..., tuple[Site, Client]],
) -> None:
    here, first = site_of_one()
    here.join("one", cache=here.folder / "other")
    assert "another process joined as 'one'" in str(first.wait())
    assert here.ask(b"forward") == [b"drawrof"]


def test_a_large_body_comes_in_chunks_and_goes_on_after_a_cut(
    site: Callable[..., Site], monkeypatch: pytest.MonkeyPatch
) -> None:
    here = site()
    here.serve()
    relay = here.relay()
    body = bytes(range(256)) * 1200
    client = here.join("one", lambda type_, body: body[:5], relay.port)
    here.grid.wait_for_clients(1)
    append = PartFile.append

    def cut_once(part: PartFile, content: bytes) -> None:
        before = part.offset
        append(part, content)
        if before <= 100_000 < part.offset:
            relay.cut()

    monkeypatch.setattr(PartFile, "append", cut_once)
    assert here.ask(body, type_="query.bank") == [body[:5]]
    assert client.asked == [("query.bank", body)]
    assert relay.counted().connections == 2
    assert relay.counted().down < len(body) + 40_000
    spy = here.raw("two")
    here.grid.end(finished=False)
    assert spy.subscribe("recast/body/#") < 0x80
    time.sleep(0.3)
    assert not [topic for topic, payload, _ in spy.heard if payload and "/body/" in topic]


def test_a_finished_run_is_told_also_to_who_comes_when_the_server_has_gone(
    site: Callable[..., Site], wait_until: Callable[..., None]
) -> None:
    here = site(tls=False)
    here.serve()
    relay = here.relay()
    one, two = here.join("one"), here.join("two", port=relay.port)
    wait_until(lambda: "connected" in one.events and "connected" in two.events)
    relay.refuse()
    relay.cut()
    here.grid.end(finished=True)
    assert one.wait() == "finished"
    relay.refuse(False)
    assert two.wait() == "finished"
    again = here.join("one")
    wait_until(lambda: again.link._connection > 0)
    time.sleep(0.3)
    assert again.ended is None, "it waits for the next run"


def test_garbage_and_strangers_are_refused_counted_and_harm_nobody(
    site_of_one: Callable[..., tuple[Site, Client]], wait_until: Callable[..., None]
) -> None:
    here, _ = site_of_one(tls=False)
    raw = here.raw("bad")
    raw.publish("recast/up/one", b"\xff\xff\xff")
    raw.publish("recast/up/one", bytes((1 << 20) + 100))
    raw.publish("recast/up/serve", b"x")
    raw.publish("recast/up/absent", link.FromClient(number=3, reply=b"x").SerializeToString())
    assert here.ask(b"forward") == [b"drawrof"]
    found = [(r.client, r.reason) for r in here.grid.take_refusals()]
    assert found == [
        (str(node_id("one")), "garbage"),
        (str(node_id("one")), "oversize"),
        ("unknown", "denied"),
        (str(node_id("absent")), "stray"),
    ]
