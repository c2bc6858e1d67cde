"""Drift inside a task: its severity moves from round to round, alike on every engine."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from client.app import app
from client.data import load_dataset, parse_task
from client.data.folder import drifted_name, folder_task_data
from experiments.engines.folded import FoldedGrid
from experiments.engines.sequential import SequentialGrid
from recast_core.errors import RecastError
from recast_core.settings import Settings
from recast_core.shifts.drift import at_round
from server.app import Conditions, run_federation
from server.exchange.observer import LogObserver
from server.flower import server_identity
from server.record.registry import Registry

CLIENTS = 3
Make = Callable[..., Settings]


def severities(text: str, rounds: int) -> list[str]:
    spec = parse_task(text)
    return [at_round(spec, r, rounds).transforms[-1] for r in range(1, rounds + 1)]


def test_a_severity_moves_evenly_from_the_first_round_to_the_last() -> None:
    assert severities("digits+fog:1-5", 5) == [f"fog:{s}" for s in (1, 2, 3, 4, 5)]
    assert severities("digits+fog:1-5", 6) == [f"fog:{s}" for s in (1, 2, 3, 3, 4, 5)]
    assert severities("digits+fog:5-1", 3) == ["fog:5", "fog:3", "fog:1"]
    assert severities("digits+fog:1-5", 1) == ["fog:5"]
    spec = parse_task("digits+far:2+fog:1-5")
    assert spec.name == "digits-far-2-fog-1-5"
    assert parse_task(str(spec)) == spec
    assert at_round(spec, 2, 3).transforms == ("far:2", "fog:3")
    assert at_round(spec, 0, 3) == at_round(spec, 9, 3) == at_round(spec, 3, 3)
    assert parse_task("digits+fog:3-3").transforms == ("fog:3",)
    assert parse_task("corrupted:C+fog:1-5").transforms == ("fog:1-5",)
    for bad in ("fog:1-6", "fog:0-5", "fog:1-", "fog:1-2-3"):
        with pytest.raises(RecastError, match=r"severity .* of fog: use 1 .faint. to 5"):
            parse_task(f"digits+{bad}")


def test_images_are_those_of_the_last_round_where_no_round_is_said() -> None:
    drifting, end = (load_dataset(parse_task(f"digits+fog:{s}"), 8) for s in ("1-5", "5"))
    assert np.array_equal(drifting.x_train, end.x_train)
    assert np.array_equal(drifting.x_test, end.x_test)


def learn(settings: Settings, folder: Path, engine: str) -> Registry:
    with server_identity():
        grid: FoldedGrid | SequentialGrid = FoldedGrid(CLIENTS, settings)
        if engine == "sequential":
            grid = SequentialGrid(CLIENTS, app, settings, folder / "caches")
        around = Conditions(patience=0)
        found = run_federation(grid, settings, folder, LogObserver(), conditions=around)
    return Registry(found.registry)


@pytest.mark.parametrize("head", ["local", "task:a"])
def test_all_engines_meet_the_same_drift_and_earlier_tasks_stay_as_they_were(
    tiny: Make, digits_file: Path, tmp_path: Path, head: str
) -> None:
    data = f"npz:{digits_file}"
    settings = tiny(tasks=f"a={data} b={data}+lowlight:1-5 c={data}", rounds=3, head=head)
    with (
        learn(settings, tmp_path / "one", "folded") as one,
        learn(settings, tmp_path / "other", "sequential") as other,
        learn(
            tiny(tasks=f"a={data} b={data}+lowlight:5 c={data}", rounds=3, head=head),
            tmp_path / "still",
            "folded",
        ) as still,
    ):
        for task in (1, 2, 3):
            for round_ in (1, 2, 3):
                here, there = (r.coefficients(1, task, round_) for r in (one, other))
                np.testing.assert_allclose(here, there, rtol=0, atol=1e-5)
        assert np.array_equal(one.coefficients(1, 1), still.coefficients(1, 1))
        assert (one.coefficients(1, 2, 1) != still.coefficients(1, 2, 1)).any()
        told = [[(a.task, a.accuracy) for a in r.accuracies(1)] for r in (one, other)]
        assert told[0] == told[1]
        for task in (1, 2):
            own = [a.accuracy for a in one.accuracies(1) if a.task == task]
            assert own[0] == own[-1]


def test_a_clients_own_images_drift_as_they_lie_in_its_folder(tmp_path: Path) -> None:
    images = np.zeros((8, 8, 8), np.uint8)
    labels = np.arange(8) % 2
    for name, value in (("fog", 1), ("fog@3", 3), ("fog@10", 10), ("foggy@2", 99)):
        np.savez(
            tmp_path / f"{name}.npz",
            x_train=images + value, y_train=labels, classes=np.array(["c0", "c1"]),
        )  # fmt: skip
    found = {r: folder_task_data(tmp_path, "fog", 8, round_=r) for r in (0, 1, 2, 3, 9, 10, 12)}
    brightness = {r: int(data.x_train.max()) for r, data in found.items() if data is not None}
    assert brightness == {0: 10, 1: 1, 2: 1, 3: 3, 9: 3, 10: 10, 12: 10}
    assert drifted_name(tmp_path, "snow", 1) == "snow"
