"""The study of what makes a bank good: every way has a row, and no row is made twice."""

from __future__ import annotations

import json
from pathlib import Path

from experiments.studies import shift_sources


def test_every_way_to_make_a_bank_has_a_row_and_is_not_tried_again(tmp_path: Path) -> None:
    rows, keep = tmp_path / "rows.jsonl", tmp_path / "networks"

    def run() -> str:
        shift_sources.main(["--quick", "--device", "cpu", "--rows", str(rows), "--keep", str(keep)])
        return rows.read_text()

    written = run()
    everything, whole, half = (json.loads(line) for line in written.splitlines())
    assert everything["what"] == "everything"
    assert {"federated 0", "central 0", "federated 0.0002"} <= everything.keys()
    # A source of the held-out family is in no bank, and half the sources are fewer.
    assert half["used"] < whole["used"] <= 4
    assert whole["bytes"] == 0 < half["bytes"]
    assert 0 <= whole["federated 0.3"] <= 1
    assert run() == written
