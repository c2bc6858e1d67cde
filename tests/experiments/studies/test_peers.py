"""The comparison runs with what is there, and says what is not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from experiments.studies import peers


def test_missing_peers_are_named_and_ours_is_measured_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(peers, "_there", lambda module: False)
    out = tmp_path / "peers.json"
    peers.main(["--quick", "--json", str(out)])
    said = capsys.readouterr().out
    for package in ("blazefl", "pfl", "ray"):
        assert f"{package} is not installed and left out" in said
    found = json.loads(out.read_text())
    assert found["missing"] == ["blazefl", "pfl", "ray"]
    assert [row["system"] for row in found["rows"]] == ["folded", "folded"]
    for row in found["rows"]:
        assert len(row["rounds"]) == 2
        assert all(seconds > 0 for seconds in [*row["rounds"], *row["cpu"]])
    real, light = found["rows"]
    assert 0.5 < real["accuracy"] < 1
    assert light["accuracy"] is None


def test_ratios_are_of_neighbours_in_time_and_who_failed_says_why() -> None:
    def row(system: str, repeat: int, *rounds: float) -> dict[str, object]:
        here = {"system": system, "clients": 500, "light": False, "repeat": repeat}
        return {**here, "rounds": rounds, "cpu": [2 * s for s in rounds], "accuracy": 0.5}

    rows = [
        row("folded", 0, 2, 1), row("pfl-plain", 0, 4, 2),
        row("folded", 1, 20, 10), row("pfl-plain", 1, 20, 30),
        row("folded", 2, 2, 1), row("pfl-plain", 2, 2, 2.5),
        {"system": "ray", "clients": 500, "light": False, "repeat": 0, "error": "no ray today"},
    ]  # fmt: skip
    text = peers.table(rows)
    assert (
        "| 500 | pfl, two workers, plain PyTorch loop | 2.50 | 2.50 | 4.00 | 1.00 | 5.00 "
        "| 2.50 | 50.0 |" in text
    )
    assert "| 500 | Flower on Ray, same client code | no ray today | | | | | | |" in text
