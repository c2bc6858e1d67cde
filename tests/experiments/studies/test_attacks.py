"""The study of attacks runs, and goes on where it stopped."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from experiments.studies import attacks


def test_the_short_form_ends_with_a_table_and_repeats_no_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = tmp_path / "rows.jsonl"
    attacks.main(["--quick", "--task", "motion=digits[92%:]+motion:4", "--rows", str(rows)])
    first = rows.read_text()
    found = [json.loads(line) for line in first.splitlines()]
    assert [(row["attack"], row["end"]) for row in found] == [
        ("none", "finished"),
        ("huge", "finished"),
    ]
    assert found[0]["refused"] == 0
    assert found[1]["refused"] == 1
    assert "| huge | 1 |" in capsys.readouterr().out
    attacks.main(["--quick", "--rows", str(rows)])
    assert rows.read_text() == first
