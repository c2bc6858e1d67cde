"""The names of a task's classes, from its run to what is made of it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from recast_core.backbones.files import read_state
from recast_core.settings import Settings
from recast_core.task_spec import parse_task
from server.record.registry import Registry

if TYPE_CHECKING:
    from conftest import Simulated

NAMES = ["c0", "c1", "c2"]
Recast = Callable[..., Any]


def test_a_run_records_names_and_its_tables_and_pages_have_them(
    simulated: Simulated, recast: Recast, tmp_path: Path
) -> None:
    with Registry(simulated.folder / "registry.sqlite") as registry:
        assert registry.class_lists(1) == {1: tuple(NAMES), 2: tuple(NAMES)}
    run = str(simulated.folder)
    shown = recast("tasks", "show", "b", "--run", run, "--json", "-")
    assert json.loads(shown.stdout)["class_names"] == NAMES
    assert "3: c0, c1, c2" in shown.stderr
    page = recast("report", run, "-o", str(tmp_path / "r.html"), "--json", "-")
    assert [task["class_names"] for task in json.loads(page.stdout)["tasks"]] == [NAMES] * 2
    assert 'title="c0, c1, c2"' in (tmp_path / "r.html").read_text()


@pytest.mark.parametrize("order", [[0, 1, 2], [2, 0, 1]])
def test_an_exported_model_has_the_tasks_classes_in_their_order(
    simulated: Simulated, recast: Recast, tmp_path: Path, tiny: Callable[..., Settings],
    order: list[int],
) -> None:  # fmt: skip
    source = np.load(parse_task(tiny().tasks.split()[0]).data.partition(":")[2])
    arrays = {key: source[key] for key in source.files}
    arrays["classes"] = np.array(NAMES)[order]
    for part in ("train", "test"):
        arrays[f"y_{part}"] = np.argsort(order)[arrays[f"y_{part}"]]
    np.savez(tmp_path / "turned.npz", **arrays)
    made = recast(
        "tasks", "export", "a", "-o", str(tmp_path / "m.safetensors"), "--run",
        str(simulated.folder), "--data", f"npz:{tmp_path / 'turned.npz'}", "--json", "-",
    )  # fmt: skip
    report = json.loads(made.stdout)
    assert report["classes"] == NAMES
    assert report["test_accuracy"] > 0.8
    state, about = read_state(tmp_path / "m.safetensors")
    assert json.loads(about["classes"]) == NAMES
    plain = recast(
        "tasks", "export", "a", "-o", str(tmp_path / "p.safetensors"), "--run",
        str(simulated.folder), "--data", tiny().tasks.split()[0].partition("=")[2], "--json", "-",
    )  # fmt: skip
    assert plain.returncode == 0
    np.testing.assert_allclose(
        state["linear.weight"],
        read_state(tmp_path / "p.safetensors")[0]["linear.weight"],
        atol=1e-4,
    )


def test_a_model_without_a_head_still_says_what_its_task_told_apart(
    simulated: Simulated, recast: Recast, tmp_path: Path
) -> None:
    path = tmp_path / "m.safetensors"
    recast("tasks", "export", "a", "-o", str(path), "--run", str(simulated.folder))
    about = read_state(path)[1]
    assert (about["head"], json.loads(about["classes"])) == ("none", NAMES)


def test_a_head_of_other_classes_is_of_the_datas_own_and_says_so(
    simulated: Simulated, recast: Recast, tmp_path: Path
) -> None:
    done = recast(
        "tasks", "export", "a", "-o", str(tmp_path / "m.safetensors"), "--run",
        str(simulated.folder), "--data", "digits", "--json", "-",
    )  # fmt: skip
    assert json.loads(done.stdout)["classes"] == list("0123456789")
    assert "'0' is none of the task's 3" in done.stderr
