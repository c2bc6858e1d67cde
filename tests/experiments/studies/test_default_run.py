"""The default run by other methods: rows that go on, and results that a plan can read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from experiments.report.results import load_results, save_results
from experiments.studies import default_run

TASK = "fog=digits[50%:]+fog:5"


def _row(method: str, seed: int, accuracy: float, free: float) -> dict[str, Any]:
    task = {
        "accuracy": accuracy, "zero_byte_accuracy": free, "update_bytes": 44, "coefficients": 48,
        "baselines": {"deployed": 0.1, "statistics": free - 0.1, "local head": free},
    }  # fmt: skip
    return {
        "method": method, "seed": seed, "specs": TASK, "clients": 20, "rounds": 6,
        "tasks": {"fog": task},
    }  # fmt: skip


def test_a_row_is_a_run_of_the_product_and_is_not_made_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = tmp_path / "rows.jsonl"
    order = ["--methods", "shift bank", "--seeds", "0", "--rows", str(rows)]
    order += ["--clients", "2", "--rounds", "1", "--tasks", "fog=digits[92%:]+fog:5"]
    default_run.main(order)
    first, told = rows.read_text(), capsys.readouterr().out
    task = json.loads(first)["tasks"]["fog"]
    assert task["coefficients"] == 48
    assert task["zero_byte_accuracy"] == max(task["baselines"].values())
    assert f"| shift bank | {task['update_bytes']} B | {100 * task['accuracy']:.1f} (" in told
    monkeypatch.setattr(default_run, "run", lambda *_: pytest.fail("a run was made again"))
    default_run.main(order)
    assert (rows.read_text(), capsys.readouterr().out) == (first, told)


def test_results_are_over_the_seeds_asked_for_and_keep_other_studies(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = [
        _row("shift bank", 0, 0.7, 0.5), _row("shift bank", 1, 0.9, 0.7),
        _row("norm groups 1", 0, 0.6, 0.5), _row("norm groups 1", 1, 0.7, 0.7),
        _row("shift bank", 2, 0.0, 0.0),
    ]  # fmt: skip
    rows, results = tmp_path / "rows.jsonl", tmp_path / "results.json"
    rows.write_text("".join(json.dumps(row) + "\n" for row in made))
    packaged = load_results()
    save_results(results, packaged)
    methods = ["--methods", "shift bank", "norm groups 1", "--tasks", TASK, "--seeds", "0", "1"]
    default_run.main([*methods, "--rows", str(rows), "--results", str(results)])
    assert "| shift bank | 44 B | 80.0 (70.0-90.0) | +20.0 |" in capsys.readouterr().out
    found = load_results(results)
    kept = tuple(row for row in packaged if row.study != default_run.STUDY)
    assert found[: len(kept)] == kept
    own = found[len(kept) :]
    assert [(row.method, row.bank, row.head) for row in own] == [
        ("head-only", "", "backbone"), ("head-only", "", "local"),
        ("recast", "shifts", "backbone"), ("norm-groups:1", "", "backbone"),
    ]  # fmt: skip
    assert [round(row.gain, 5) for row in own] == [-0.1, 0.0, 0.2, 0.05]
    assert {row.seeds for row in own} == {2}
