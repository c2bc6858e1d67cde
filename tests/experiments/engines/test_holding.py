"""A simulated client whose process ends still holds its bank: it crosses once, as on the link."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from experiments.engines.folded import FoldedGrid
from experiments.engines.holding import holders
from experiments.report.data import report_data
from experiments.report.summary import bank_sent
from experiments.session.simulation import Population, simulate
from experiments.session.view import Quiet
from recast_core.settings import Settings
from server.app import RunResult
from server.record.ledger import Key, Ledger
from server.record.registry import Registry
from server.record.rows import LedgerRow
from server.record.tables import LedgerEntry

CLIENTS = 3
Tiny = Callable[..., Settings]


class Until(Quiet):
    """Stops the process, as far as this can be done in one, after the first round."""

    def round_finished(self, task: str, round_: int, updates: int, seconds: float) -> None:
        raise KeyboardInterrupt


def travels(tiny: Tiny, folder: Path) -> Settings:
    # An actor of Ray's may start half a minute after another.
    return tiny(rounds=2, run_dir=str(folder), source="gradient", max_lag=0.0)


def banks(folder: Path) -> Counter[str]:
    """How many banks each client was sent."""
    query = LedgerEntry.kind == "bank", LedgerEntry.layer == "payload"
    with Registry(folder / "registry.sqlite") as registry, registry.reading() as session:
        rows = session.query(LedgerEntry).where(*query).all()
        assert len({row.bytes for row in rows}) == 1
        return Counter(row.client for row in rows)


def interrupted(settings: Settings, engine: str) -> None:
    with pytest.raises(KeyboardInterrupt):
        simulate(settings, Population(CLIENTS, engine), Until())


@pytest.mark.parametrize("engine", ["folded", "sequential"])
def test_a_run_that_goes_on_sends_no_bank_to_those_that_were_sent_it(
    engine: str, tiny: Tiny, tmp_path: Path
) -> None:
    settings = travels(tiny, tmp_path)
    interrupted(settings, engine)
    assert banks(tmp_path) == {"1": 1, "2": 1, "3": 1}
    interrupted(settings, engine)
    done = simulate(settings, Population(CLIENTS, engine), Quiet())
    assert banks(tmp_path) == {"1": 1, "2": 1, "3": 1}
    assert bank_sent(done.result).endswith("B to all clients, once")
    assert [task["rounds"] for task in done.report["tasks"]] == [2, 2]


def test_clients_of_flowers_simulation_hold_what_they_were_sent_on_another_engine(
    tiny: Tiny, tmp_path: Path
) -> None:
    settings = travels(tiny, tmp_path)
    interrupted(settings, "folded")
    done = simulate(settings, Population(CLIENTS, "ray"), Quiet())
    assert banks(tmp_path) == {"1": 1, "2": 1, "3": 1}
    assert [task["rounds"] for task in done.report["tasks"]] == [2, 2]
    # Flower gives its nodes other ids; they are the same three clients.
    assert bank_sent(done.result).endswith("B to all clients, once")


def test_clients_of_flowers_simulation_are_known_by_their_own_numbers(tmp_path: Path) -> None:
    start: Any = SimpleNamespace(to_bytes=lambda: bytes(100))
    with Registry(tmp_path / "registry.sqlite") as registry:
        run = registry.start_run({}, bytes(32), {})
        registry.name_clients(run, {"7000000000000": "client 2", "8000000000000": "edge"})
        sent = {"7000000000000": 100, "8000000000000": 100, "5": 100, "6": 99, "9000000000000": 1}
        registry.record_traffic(run, [delivery(client, size) for client, size in sent.items()])
        assert holders(registry, run, start) == [1, 4]


def delivery(client: str, size: int) -> LedgerRow:
    return LedgerRow(None, 0, client, "down", "bank", "payload", size)


@pytest.mark.parametrize(
    ("sent", "words"),
    [
        ({}, "which no client had to be sent"),
        ({"1": 100, "2": 100}, "200 B to all clients, once"),
        ({"1": 100}, "100 B to 1 of 2 clients, once"),
        ({"1": 200, "2": 100}, "300 B to all clients, 1 of them more than once"),
        # What was cut off and gone on with is one delivery.
        ({"1": 100, "2": 37}, "137 B to all clients, once"),
    ],
)
def test_the_closing_words_say_who_was_sent_the_bank_and_how_often(
    sent: dict[str, int], words: str, tmp_path: Path
) -> None:
    start: Any = SimpleNamespace(to_bytes=lambda: bytes(100))
    with Registry(tmp_path / "registry.sqlite") as registry:
        run = registry.start_run({}, bytes(32), {})
        hello = [LedgerRow(None, 0, client, "up", "control", "message", 5) for client in "12"]
        registry.record_traffic(run, hello + [delivery(c, size) for c, size in sent.items()])
        assert Ledger(registry).deliveries(run) == sent
    assert bank_sent(RunResult(tmp_path, run, start)) == words


def test_a_client_that_lost_the_bank_is_sent_it_again_and_counted_twice(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = travels(tiny, tmp_path)
    interrupted(settings, "folded")
    monkeypatch.setattr(FoldedGrid, "hold", lambda *_: None)
    done = simulate(settings, Population(CLIENTS, "folded"), Quiet())
    assert banks(tmp_path) == {"1": 2, "2": 2, "3": 2}
    assert bank_sent(done.result).endswith("B to all clients, 3 of them more than once")


def test_a_summary_of_the_ledger_has_the_totals_of_the_full_one_also_when_a_run_goes_on(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("server.record.sums.SAMPLE", 1)
    keys: tuple[Key, ...] = ("task", "round", "direction", "kind", "layer")
    found, counts, reports = [], [], []
    for kind in ("full", "summary"):
        folder = tmp_path / kind
        settings = replace(travels(tiny, folder), ledger=kind)
        interrupted(settings, "folded")
        done = simulate(settings, Population(CLIENTS, "folded"), Quiet())
        with Registry(folder / "registry.sqlite") as registry:
            ledger = Ledger(registry)
            found.append(ledger.totals(1, keys))
            counts.append(len(ledger.rows(1)))
        reports.append(done.report["tasks"])
        assert report_data(folder / "registry.sqlite")["bank"]["delivered_to"] == CLIENTS
        assert banks(folder) == {"1": 1, "2": 1, "3": 1}
    assert found[0] == found[1]
    assert reports[0] == reports[1]
    assert counts[1] < counts[0]
