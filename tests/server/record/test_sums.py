"""A ledger in summary has the totals of the full one, and rows that do not grow with the fleet."""

from __future__ import annotations

import random
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import get_args

import pytest

from server.record.ledger import Key, Ledger
from server.record.registry import Registry
from server.record.rows import OTHERS, LedgerRow, Refusal
from server.record.sums import SAMPLE
from server.record.tables import LedgerEntry, RefusalEntry

CLIENTS, ROUNDS = 200, 3


@pytest.fixture(params=["sqlite", "postgres"])
def registry(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Registry]:
    url = request.getfixturevalue("database") if request.param == "postgres" else ""
    with Registry(tmp_path / "registry.sqlite", url=url) as registry:
        yield registry


def fill(ledger: Ledger) -> None:
    chance = random.Random(3)
    for client in range(CLIENTS):
        who = str(client)
        ledger.add(LedgerRow(None, 0, who, "down", "bank", "payload", 4000))
        ledger.add(LedgerRow(None, 0, who, "up", "control", "message", chance.randint(5, 90)))
    for round_ in range(1, ROUNDS + 1):
        for client in range(CLIENTS):
            who, size = str(client), chance.randint(20, 60)
            ledger.add(
                LedgerRow("a", round_, who, "down", "coefficients", "message", 2**31 + 51),
                LedgerRow("a", round_, who, "up", "coefficients", "payload", size),
                LedgerRow("a", round_, who, "up", "coefficients", "message", size + 5),
            )
            if client % 2:
                ledger.refuse(Refusal(who, "a", round_, "away", "simulated fleet"))
    ledger.add(LedgerRow("a", 1, "199", "up", "coefficients", "message", 777))


def test_all_sums_are_those_of_the_full_ledger(registry: Registry) -> None:
    runs = []
    for summary in (False, True):
        run = registry.start_run({}, bytes(32), {}, "recast simulate")
        registry.add_task(run, "a")
        ledger = Ledger(registry, summary=summary)
        fill(ledger)
        registry.record_traffic(run, ledger.drain(), ledger.drain_refusals())
        assert not ledger.drain()
        assert not ledger.drain_refusals()
        runs.append(run)
    full, short = runs
    names = [name for name in get_args(Key) if name not in ("client", "layer")]
    for count in range(len(names) + 1):
        for by in combinations(names, count):
            keys = (*by, "layer")
            assert ledger.totals(short, keys) == ledger.totals(full, keys)
    assert ledger.longest_updates(short) == ledger.longest_updates(full) == {"a": 777}
    assert ledger.of_round(short, "a", 2) == ledger.of_round(full, "a", 2)
    assert ledger.refusals(short) == ledger.refusals(full) == {"away": ROUNDS * CLIENTS // 2}
    assert sum(refusal.times for refusal in registry.refusals(short)) == ROUNDS * CLIENTS // 2
    # Who has the bank is known of every client.
    assert ledger.deliveries(short) == {str(client): 4000 for client in range(CLIENTS)}


def test_rows_do_not_grow_with_the_fleet_and_some_clients_have_all_of_theirs(
    registry: Registry,
) -> None:
    run = registry.start_run({}, bytes(32), {}, "recast simulate")
    registry.add_task(run, "a")
    ledger = Ledger(registry, summary=True)
    fill(ledger)
    registry.record_traffic(run, ledger.drain(), ledger.drain_refusals())
    with registry.reading() as session:
        rows = [row for row in session.query(LedgerEntry) if row.kind != "bank"]
        assert session.query(RefusalEntry).count() == ROUNDS * (SAMPLE + 1)
    assert len(rows) == ROUNDS * 3 * (SAMPLE + 1) + SAMPLE + 1
    sampled = [row for row in rows if row.client != OTHERS]
    assert {row.client for row in sampled} == {str(client) for client in range(SAMPLE)}
    assert {(row.messages, row.longest) for row in sampled} == {(1, None)}
    others = [row for row in rows if row.client == OTHERS and row.round == 2]
    assert [row.messages for row in others] == [CLIENTS - SAMPLE] * 3
