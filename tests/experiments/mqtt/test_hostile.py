"""Clients that flood the server, and joins that cross with a new server process."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from protos import link_v1_pb2 as link
from protos.link import MAX_FRAME
from server.mqtt import intake
from tests.experiments.ends import LONG

if TYPE_CHECKING:
    from conftest import Client, Site


def test_one_that_is_refused_without_end_is_told_so_only_now_and_then(
    site_of_one: Callable[..., tuple[Site, Client]], wait_until: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(intake, "SECONDS_OF_PENANCE", LONG)
    here, _ = site_of_one()
    two = here.raw("two")
    two.subscribe("recast/down/two")
    join = link.FromClient(join=link.Join(session=1, certificate=b"none")).SerializeToString()
    for _ in range(200):
        two.publish("recast/up/two", join)
    refused = here.grid.sessions.refused
    wait_until(lambda: refused["denied"] + refused["too-many-joins"] >= 200)
    assert here.ask(b"forward") == [b"drawrof"]
    told = [frame for topic, frame, _ in two.heard if topic == "recast/down/two"]
    assert 1 <= len(told) <= 40
    assert refused["denied"] <= 40, "its certificate is not looked at each time"


def test_the_broker_leaves_out_what_would_only_fill_the_servers_memory(
    site_of_one: Callable[..., tuple[Site, Client]],
) -> None:
    here, _ = site_of_one()
    two = here.raw("two")
    heard: list[int] = []
    take = here.grid._desk._intake.take
    here.grid._desk._line._said = lambda name, raw: (heard.append(len(raw)), take(name, raw))
    two.publish("recast/up/two", bytes(MAX_FRAME + 1))
    two.publish("recast/up/two", bytes(5 * MAX_FRAME))
    assert here.ask(b"forward") == [b"drawrof"]
    assert MAX_FRAME + 1 in heard
    assert max(heard) == MAX_FRAME + 1
    assert [one.reason for one in here.grid.take_refusals()] == ["oversize"]


def test_a_join_that_was_signed_for_the_server_before_is_asked_for_again(
    site_of_one: Callable[..., tuple[Site, Client]], wait_until: Callable[..., None]
) -> None:
    here, client = site_of_one()
    sign = client.link._access.sign
    crossed = []

    class Crossing:
        """Signs the next join for a server process that is gone."""

        def __getattr__(self, name: str) -> object:
            return getattr(access, name)

        def sign(self, name: str, join: link.Join, serving: int) -> None:
            crossed.append(serving)
            sign(name, join, serving ^ 1 if len(crossed) == 1 else serving)

    access = client.link._access
    client.link._access = Crossing()
    here.grid.end(finished=False)
    here.serve()
    wait_until(lambda: len(crossed) >= 2)
    here.grid.wait_for_clients(1)
    assert here.ask(b"forward") == [b"drawrof"]
    assert client.ended is None
