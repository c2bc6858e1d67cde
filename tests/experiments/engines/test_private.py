"""A private run is the same on the engines in this process, and its report says what was spent."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from client.app import app
from experiments.engines.folded import FoldedGrid
from experiments.engines.sequential import SequentialGrid
from experiments.report.data import report_data
from experiments.report.privacy import privacy_line
from experiments.report.summary import summarise
from recast_core.settings import Settings
from server.app import Conditions, run_federation
from server.exchange.observer import LogObserver
from server.flower import server_identity
from server.record.registry import Registry

Make = Callable[..., Settings]
CLIENTS = 3
KINDS = [
    {"dp": "central", "dp_epsilon": 4.0},
    {"dp": "central", "dp_epsilon": 4.0, "clients_per_round": 1, "clip": "0.1"},
    {"dp": "local", "dp_epsilon": 30.0},
]


@pytest.fixture(autouse=True)
def _server() -> Iterator[None]:
    with server_identity():
        yield


def learned(grid: Any, settings: Settings, folder: Path, *, secret: bool = False) -> Any:
    conditions = Conditions(patience=0.0, secret_sampling=secret)
    return run_federation(grid, settings, folder, LogObserver(), conditions=conditions)


def vectors(folder: Path) -> list[bytes]:
    with Registry(folder / "registry.sqlite") as registry:
        return [r.coefficients for t in registry.tasks(1) for r in registry.rounds(1, t.number)]


@pytest.mark.parametrize("kind", KINDS)
def test_engines_agree_and_the_same_seed_gives_the_same_bytes(
    tiny: Make, tmp_path: Path, kind: dict[str, Any]
) -> None:
    settings = tiny(rounds=2, **kind)
    grids = {
        "folded": FoldedGrid(CLIENTS, settings),
        "again": FoldedGrid(CLIENTS, settings),
        "alone": SequentialGrid(CLIENTS, app, settings, tmp_path / "caches"),
    }
    results = {name: learned(grid, settings, tmp_path / name) for name, grid in grids.items()}
    found = [vectors(tmp_path / name) for name in grids]
    assert found[0] == found[1] == found[2]
    report = summarise(results["folded"], "folded", settings.seed, 0.0)
    private, tasks = report["privacy"], len(report["tasks"])
    assert private["budget"] == kind["dp_epsilon"]
    assert 0.97 * kind["dp_epsilon"] < private["epsilon"] <= kind["dp_epsilon"]
    assert len(private["rounds"]) == 2 * tasks
    assert private["seeded"]
    assert "protects nobody" in privacy_line(private)
    assert report_data(results["folded"].registry)["privacy"] == private


def test_noise_of_a_run_with_others_machines_cannot_be_repeated(tiny: Make, tmp_path: Path) -> None:
    settings = tiny(rounds=1, dp_epsilon=4.0)
    for name in "ab":
        learned(FoldedGrid(CLIENTS, settings), settings, tmp_path / name, secret=True)
    assert vectors(tmp_path / "a") != vectors(tmp_path / "b")
    private = report_data(tmp_path / "a" / "registry.sqlite")["privacy"]
    assert not private["seeded"]
    assert "noise from the system's randomness" in privacy_line(private)


def test_a_run_without_a_budget_says_nothing_of_privacy(tiny: Make, tmp_path: Path) -> None:
    settings = tiny(rounds=1)
    result = learned(FoldedGrid(CLIENTS, settings), settings, tmp_path)
    assert "privacy" not in summarise(result, "folded", 0, 0.0)
    assert report_data(result.registry)["privacy"] is None
