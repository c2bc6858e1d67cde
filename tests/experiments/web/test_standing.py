"""Any grid's clients by state: written beside the registry, shown by ``recast runs watch``."""

from __future__ import annotations

import json
import re
import signal
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from client.app import app
from experiments.command.watch import standing
from experiments.engines.sequential import SequentialGrid
from recast_core.settings import Settings
from server.app import run_federation
from server.exchange.observer import LogObserver
from server.exchange.standing import NAME, WatchedGrid
from server.flower import server_identity
from server.record.ledger import Ledger
from server.record.registry import Registry
from tests.experiments.ends import LONG

if TYPE_CHECKING:
    from conftest import Process


class Clock:
    """Goes on by so much that every change is written."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        self.now += 2.0
        return self.now


class Leaving(SequentialGrid):
    """Its second node is not there any more once told so."""

    left = False

    def get_node_ids(self) -> list[int]:
        return [1] if self.left else [1, 2]


def test_a_grid_that_is_watched_learns_the_same_and_says_who_is_there(
    tiny: Callable[..., Settings], tmp_path: Path
) -> None:
    settings, folder, clock = tiny(rounds=1), tmp_path / "run", Clock()
    states: list[str] = []

    class Looking(LogObserver):
        def round_finished(self, task: str, round_: int, updates: int, seconds: float) -> None:
            told = json.loads((folder / NAME).read_text())["clients"]
            states.extend(client["state"] for client in told.values())

    with server_identity():
        inner = Leaving(2, app, settings, tmp_path / "caches")
        grid = WatchedGrid(inner, folder, clock)
        run_federation(grid, settings, folder, Looking())
        plain = run_federation(
            SequentialGrid(2, app, settings, tmp_path / "others"),
            settings, tmp_path / "plain", LogObserver(),
        )  # fmt: skip
    with Registry(folder / "registry.sqlite") as one, Registry(plain.registry) as other:
        for task in (1, 2):
            first, second = (found.coefficients(1, task) for found in (one, other))
            assert first.tobytes() == second.tobytes()
        totals = Ledger(one).totals(1, by=("client", "direction", "layer"))
    assert states == ["idle"] * 4
    shown = standing(folder / "registry.sqlite", clock.now + 5)
    assert [client["name"] for client in shown["clients"]] == ["client 1", "client 2"]
    assert shown["now"] == "finished, 2 rounds recorded"
    for node, client in enumerate(shown["clients"], start=1):
        assert client["up"] == totals[str(node), "up", "message"]
        assert client["down"] == totals[str(node), "down", "message"]
        assert re.fullmatch(r"\d+ s ago", client["heard"])
        assert client["loss"] is None
    inner.left = True
    grid.get_node_ids()
    shown = standing(folder / "registry.sqlite", clock.now)
    assert [client["state"] for client in shown["clients"]] == ["idle", "away"]


def test_the_page_of_a_finished_run_is_served_and_says_what_it_does_not_know(
    tiny: Callable[..., Settings], start: Callable[..., Process], tmp_path: Path
) -> None:
    settings, folder = tiny(rounds=1), tmp_path / "run"
    with server_identity():
        run_federation(
            SequentialGrid(2, app, settings, tmp_path / "caches"), settings, folder, LogObserver()
        )
    assert "not known here" in standing(folder / "registry.sqlite")["note"]
    (folder / NAME).write_text('{"at": 1')
    assert standing(folder / "registry.sqlite")["clients"] == []
    watching = start("watch", "runs", "watch", "run", "--web", "127.0.0.1:0")
    url = watching.says(r"at (http://127\.0\.0\.1:\d+/)")[1]
    with urllib.request.urlopen(url, timeout=LONG) as page:
        assert "Training loss over rounds" in page.read().decode()
    with urllib.request.urlopen(url + "events", timeout=LONG) as events:
        ends = time.monotonic() + LONG
        while not (line := events.readline().decode()).startswith('data: {"now"'):
            assert time.monotonic() < ends
    assert "finished, 2 rounds recorded" in line
    watching.process.send_signal(signal.SIGINT)
    assert watching.ends() == 130
    assert "interrupted; the page has ended, the run is as it was" in watching.log.read_text()
