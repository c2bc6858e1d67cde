"""`recast ledger`: totals that add up to the rows that it exports."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from experiments.command.ledger import ledger
from recast_core.errors import RecastError
from server.record.registry import Registry
from server.record.rows import LedgerRow, Refusal

if TYPE_CHECKING:
    from conftest import Simulated


def test_totals_and_exported_rows_are_the_same_bytes(simulated: Simulated, tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    report = ledger(simulated.folder, csv=tmp_path / "l.csv", parquet=tmp_path / "l.parquet")
    with (tmp_path / "l.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    for layer in ("payload", "message"):
        for way in ("up", "down"):
            wanted = sum(
                int(row["bytes"])
                for row in rows
                if (row["layer"], row["direction"]) == (layer, way)
            )
            assert sum(row[f"{layer}_{way}"] for row in report["rows"]) == wanted > 0
    for task in simulated.report["tasks"]:
        found = [row for row in report["rows"] if row["task"] == task["name"]]
        assert sum(row["message_up"] for row in found) == task["message_bytes_up"]
    assert all(row["wire_up"] is None for row in report["rows"])
    import pyarrow.parquet

    assert pyarrow.parquet.read_table(tmp_path / "l.parquet").num_rows == len(rows)


def test_refusals_are_counted_by_reason_and_runs_are_kept_apart(tmp_path: Path) -> None:
    with Registry(tmp_path / "registry.sqlite") as registry:
        for number in (1, 2):
            run = registry.start_run({}, bytes(32), {})
            rows = [LedgerRow(None, 0, "7", "up", "control", "wire", 100 * number)]
            registry.record_traffic(run, rows, [Refusal("7", None, 0, "malformed", "x")] * number)
    last = ledger(tmp_path)
    assert (last["run"], last["refusals"]) == (2, {"malformed": 2})
    assert [row["wire_up"] for row in last["rows"]] == [200]
    assert ledger(tmp_path / "registry.sqlite", run=1)["rows"][0]["wire_up"] == 100
    with pytest.raises(RecastError, match="no run 3"):
        ledger(tmp_path, run=3)
