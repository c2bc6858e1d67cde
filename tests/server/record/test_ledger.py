from __future__ import annotations

import csv
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import Engine, event

from recast_core.errors import RecastError
from server.record.ledger import Key, Ledger
from server.record.registry import Registry
from server.record.rows import Direction, Kind, Layer, LedgerRow, Refusal
from tests.examples import examples

KEYS = ("task", "round", "client", "direction", "kind")
ROW = LedgerRow("a", 1, "7", "up", "coefficients", "payload", 24)

rows = st.lists(
    st.builds(
        LedgerRow,
        task=st.sampled_from([None, "a", "b"]),
        round=st.integers(0, 3),
        client=st.sampled_from(["7", "8", "18446744073709551615"]),
        direction=st.sampled_from(get_args(Direction)),
        kind=st.sampled_from(get_args(Kind)),
        layer=st.sampled_from(get_args(Layer)),
        bytes=st.integers(0, 1 << 40),
    ),
    max_size=30,
)


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[Registry]:
    with Registry(tmp_path / "registry.db") as registry:
        yield registry


def start(registry: Registry) -> int:
    run = registry.start_run({}, bytes(32), {}, "test")
    registry.add_task(run, "a", 2)
    registry.add_task(run, "b", 2)
    return run


def test_every_grouping_sums_to_the_same_bytes(tmp_path: Path) -> None:
    groupings = [keys for size in range(6) for keys in combinations(KEYS, size)]
    with Registry(tmp_path / "registry.db") as registry:
        ledger = Ledger(registry)

        @examples(25)
        @given(rows)
        def check(drawn: list[LedgerRow]) -> None:
            run = start(registry)
            ledger.add(*drawn)
            registry.record_traffic(run, ledger.drain())
            for keys in groupings:
                expected: Counter[tuple[object, ...]] = Counter()
                for row in drawn:
                    expected[(*(getattr(row, key) for key in keys), row.layer)] += row.bytes
                totals = ledger.totals(run, by=(*keys, "layer"))  # type: ignore[arg-type]
                assert totals == dict(expected)
                for layer in get_args(Layer):
                    found = sum(size for key, size in totals.items() if key[-1] == layer)
                    assert found == sum(row.bytes for row in drawn if row.layer == layer)

        check()


def test_totals_over_layers_or_unknown_columns_are_no_totals(registry: Registry) -> None:
    for by in [("task", "direction"), (), ("layer", "bytes"), ("layer", "id")]:
        with pytest.raises(ValueError, match="totals by"):
            Ledger(registry).totals(1, by=by)  # type: ignore[arg-type]
    assert "layer" in get_args(Key)


def test_the_longest_message_is_of_its_kind_direction_and_task(registry: Registry) -> None:
    run = start(registry)
    registry.record_traffic(
        run,
        [
            LedgerRow("a", 1, "7", "up", "coefficients", "message", 40),
            LedgerRow("a", 2, "7", "up", "coefficients", "message", 51),
            LedgerRow("b", 1, "7", "up", "coefficients", "message", 30),
            LedgerRow("a", 1, "7", "down", "coefficients", "message", 100),
            LedgerRow("a", 1, "7", "up", "metrics", "message", 200),
            LedgerRow("a", 1, "7", "up", "coefficients", "wire", 300),
        ],
    )
    assert Ledger(registry).longest(run, "coefficients", "up") == {"a": 51, "b": 30}


def test_drained_rows_are_drained_once_whatever_the_threads(registry: Registry) -> None:
    ledger = Ledger(registry)
    drained: list[LedgerRow] = []
    done = threading.Event()

    def drain() -> None:
        while not done.is_set():
            drained.extend(ledger.drain())

    def fill() -> None:
        for _ in range(2000):
            ledger.add(ROW)

    drainer = threading.Thread(target=drain)
    fillers = [threading.Thread(target=fill) for _ in range(4)]
    for thread in (drainer, *fillers):
        thread.start()
    for thread in fillers:
        thread.join()
    done.set()
    drainer.join()
    assert len(drained) + len(ledger.drain()) == 8000
    assert ledger.drain() == []


def test_refusals_are_counted_by_reason_within_their_run(registry: Registry) -> None:
    run, other = start(registry), start(registry)
    ledger = Ledger(registry)
    for client, reason in [("7", "stale"), ("8", "stale"), ("9", "malformed")]:
        ledger.refuse(Refusal(client, None, 1, reason, "detail"))
    registry.record_traffic(run, [], ledger.drain_refusals())
    assert ledger.drain_refusals() == []
    assert ledger.refusals(run) == {"stale": 2, "malformed": 1}
    assert ledger.refusals(other) == {}
    assert [(found.client, found.task) for found in registry.refusals(run)] == [
        ("7", None),
        ("8", None),
        ("9", None),
    ]


@pytest.mark.parametrize(
    ("row", "constraint"),
    [
        (LedgerRow("a", 1, "7", "sideways", "bank", "wire", 1), "direction"),  # type: ignore[arg-type]
        (LedgerRow("a", 1, "7", "up", "data", "wire", 1), "kind"),  # type: ignore[arg-type]
        (LedgerRow("a", 1, "7", "up", "bank", "disk", 1), "layer"),  # type: ignore[arg-type]
        (LedgerRow("a", 1, "7", "up", "bank", "wire", -1), "bytes"),
        (LedgerRow("c", 1, "7", "up", "bank", "wire", 1), "FOREIGN KEY"),
    ],
)
def test_a_row_that_cannot_be_true_is_refused(
    registry: Registry, row: LedgerRow, constraint: str
) -> None:
    run = start(registry)
    with pytest.raises(RecastError, match=constraint):
        registry.record_traffic(run, [ROW, row])
    assert Ledger(registry).totals(run) == {}


def test_the_csv_holds_every_row_of_the_run(registry: Registry, tmp_path: Path) -> None:
    run, other = start(registry), start(registry)
    odd = LedgerRow(None, 0, 'a,"b"\nc', "down", "bank", "wire", 1 << 40)
    registry.record_traffic(run, [ROW, odd])
    registry.record_traffic(other, [ROW])
    ledger = Ledger(registry)
    path = tmp_path / "out" / "ledger.csv"
    ledger.export_csv(path, run)
    with path.open(newline="") as file:
        header, *found = csv.reader(file)
    assert header == ["run", "task", "round", "client", "direction", "kind", "layer", "bytes"]
    assert found == [
        [str(run), "a", "1", "7", "up", "coefficients", "payload", "24"],
        [str(run), "", "0", 'a,"b"\nc', "down", "bank", "wire", str(1 << 40)],
    ]
    ledger.export_csv(path)
    assert len(list(csv.reader(path.open(newline="")))) == 4
    assert list(path.parent.iterdir()) == [path]


def test_parquet_holds_the_same_rows(registry: Registry, tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    run = start(registry)
    registry.record_traffic(run, [ROW, LedgerRow(None, 0, "8", "down", "bank", "wire", 1 << 40)])
    path = tmp_path / "ledger.parquet"
    Ledger(registry).export_parquet(path)
    table = parquet.read_table(path)
    assert table.column("task").to_pylist() == ["a", None]
    assert table.column("bytes").to_pylist() == [24, 1 << 40]
    assert [str(kind) for kind in table.schema.types].count("int64") == 3


def test_parquet_without_rows_has_the_same_schema(registry: Registry, tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    ledger = Ledger(registry)
    ledger.export_parquet(tmp_path / "empty.parquet")
    registry.record_traffic(start(registry), [ROW])
    ledger.export_parquet(tmp_path / "one.parquet")
    schemas = [parquet.read_schema(tmp_path / f"{name}.parquet") for name in ("empty", "one")]
    assert schemas[0].equals(schemas[1])


def test_parquet_without_pyarrow_names_the_remedy(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(RecastError, match="pip install pyarrow"):
        Ledger(registry).export_parquet(tmp_path / "ledger.parquet")
    assert not (tmp_path / "ledger.parquet").exists()


def test_ten_thousand_rows_take_no_more_statements_than_a_hundred(registry: Registry) -> None:
    run, statements = start(registry), []

    def seen(*call: object) -> None:
        statements.append(call[2])

    def record(clients: int) -> int:
        statements.clear()
        rows = [
            LedgerRow("a", 1, str(client), "up", "coefficients", layer, 24)
            for client in range(clients)
            for layer in ("payload", "message")
        ]
        registry.record_traffic(run, rows)
        return len(statements)

    event.listen(Engine, "before_cursor_execute", seen)
    try:
        assert record(5000) == record(50) > 0
    finally:
        event.remove(Engine, "before_cursor_execute", seen)
    assert Ledger(registry).totals(run)[("a", "up", "payload")] == 5050 * 24
