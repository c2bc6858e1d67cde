"""Clients without images, steps that teach nothing, and data that change: said, not passed over."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from client.app import app
from client.data import load_dataset
from experiments.engines.sequential import SequentialGrid
from recast_core import RecastError
from recast_core.settings import Settings
from recast_core.task_spec import parse_task
from server.app import Conditions, run_federation
from server.exchange.observer import LogObserver
from server.flower import server_identity
from server.record.registry import Registry
from server.record.resume import changed_shares

Recast = Callable[..., Any]
Make = Callable[..., Settings]


def few(folder: Path, tiny: Make, images: int = 15) -> Path:
    source = np.load(parse_task(tiny().tasks.split()[0]).data.partition(":")[2])
    arrays = {key: source[key] for key in source.files}
    for key in ("x_train", "y_train"):
        arrays[key] = arrays[key][:images]
    np.savez(folder / "few.npz", **arrays)
    return folder / "few.npz"


@pytest.mark.parametrize("engine", ["folded", "sequential"])
@pytest.mark.parametrize("head", ["local", "means", "ridge", "shared", "linear"])
def test_clients_without_images_take_no_part_and_are_counted(
    recast: Recast, tiny: Make, tmp_path: Path, engine: str, head: str,
    command_line: Callable[[Settings], list[str]],
) -> None:  # fmt: skip
    source = few(tmp_path, tiny)
    settings = tiny(
        tasks=f"few=npz:{source}", partition="dirichlet:0.5", head=head, batch=4, epochs=1,
        run_dir=str(tmp_path / "run"),
    )  # fmt: skip
    done = recast(
        "simulate", "--clients", "30", "--engine", engine, *command_line(settings), "--json", "-"
    )
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    with Registry(tmp_path / "run" / "registry.sqlite") as registry:
        there = len(registry.shares(1))
        absent = {r.client for r in registry.refusals(1) if r.reason == "no-data"}
    assert report["without_images"] == {"few": 30 - there} == {"few": len(absent)}
    assert f"few: {30 - there} clients have no training images and took no part" in done.stderr
    assert f"{there} clients ready, bank sent to {there}" in done.stderr
    assert "left out" not in done.stderr
    told = re.search(rf"task few: (\d+) of {there} clients have images of one class", done.stderr)
    trained = re.search(r"few round 1: (\d+) updates", done.stderr)
    assert told is not None
    assert trained is not None
    assert int(told[1]) + int(trained[1]) == there


def test_batches_too_small_to_teach_are_refused(tiny: Make) -> None:
    for batch in (1, 2, 3):
        with pytest.raises(RecastError, match="teaches nothing with fewer than 4 images"):
            tiny(batch=batch)
    assert tiny(batch=4).batch == 4


def test_the_smallest_batch_that_is_taken_moves_the_coefficients(
    tiny: Make, tmp_path: Path
) -> None:
    for images in (4, 5, 9, 15):
        source = few(tmp_path, tiny, images)
        settings = tiny(tasks=f"few=npz:{source}", batch=4, epochs=4)
        load_dataset.cache_clear()
        folder = tmp_path / str(images)
        with server_identity():
            grid = SequentialGrid(1, app, settings, folder / "caches")
            result = run_federation(
                grid, settings, folder, LogObserver(), conditions=Conditions(patience=0.0)
            )
        with Registry(result.registry) as registry:
            moved = registry.coefficients(1, 1) - result.start.initial_vector.numpy()
        assert np.abs(moved).max() > 0


def test_a_round_that_moves_nothing_is_said_to(
    tiny: Make, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    source = few(tmp_path, tiny, 3)  # one image of each class
    settings = tiny(tasks=f"few=npz:{source}")
    load_dataset.cache_clear()
    with server_identity(), caplog.at_level(logging.WARNING, "recast.server"):
        grid = SequentialGrid(1, app, settings, tmp_path / "caches")
        run_federation(
            grid, settings, tmp_path / "run", LogObserver(), conditions=Conditions(patience=0.0)
        )
    assert "round 1 of task few moved nothing" in caplog.text


def test_a_run_is_not_continued_with_other_data(
    recast: Recast, tiny: Make, tmp_path: Path, command_line: Callable[[Settings], list[str]]
) -> None:
    source = few(tmp_path, tiny, 60)
    settings = tiny(tasks=f"few=npz:{source}", rounds=2, run_dir=str(tmp_path / "run"))
    command = ["simulate", "--clients", "2", *command_line(settings)]
    assert recast(*command).returncode == 0
    with Registry(tmp_path / "run" / "registry.sqlite") as registry:
        registry.finish_run(1, "interrupted")
    arrays = dict(np.load(source))
    arrays["x_train"][7] ^= 1
    np.savez(source, **arrays)
    done = recast(*command)
    assert done.returncode == 2
    assert "the data of task 'few' have changed" in done.stderr
    arrays["x_train"][7] ^= 1
    np.savez(source, **arrays)
    assert recast(*command).returncode == 0


def test_a_client_that_has_other_counts_than_before_is_named(tmp_path: Path) -> None:
    with Registry(tmp_path / "r.sqlite") as registry:
        run = registry.start_run({}, bytes(32), {}, "test")
        registry.add_task(run, "t")
        registry.describe_task(run, 1, 3, {"a": (10, 5), "b": (7, 2)})
        found = changed_shares(registry.shares(run), 1, {"a": (12, 5), "b": (7, 2), "c": (1, 1)})
    assert found == ["client a has 12 training and 5 test images of it now, and had 10 and 5"]
