"""What others add without an edit of a file of ours, and how it is found."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from experiments.command.program import program
from protos import recast_v1_pb2 as pb
from recast_core.plugins import load_plugins
from recast_core.wire import transforms
from recast_core.wire.codec import decode
from recast_core.wire.messages import Hyperparameters
from server.rounds import aggregation
from server.rounds.aggregation import Contribution

HERE = Path(__file__).parent
OF_RECAST = ("--source", "themselves", "--head", "centres", "--aggregation", "own-median")
TRANSFORM = ("--transforms", "times:0.5")
Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def recast(tmp_path: Path) -> Run:
    """Runs the command in a folder of its own, with plug-ins."""

    def run(*arguments: str, plugins: str = "orchard") -> subprocess.CompletedProcess[str]:
        environment = os.environ | {
            "PYTHONPATH": str(HERE),
            "RECAST_PLUGINS": plugins,
            "ORCHARD_LOG": str(tmp_path / "log"),
        }
        return subprocess.run(
            [*program(), *arguments],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            timeout=900,
        )

    return run


@pytest.fixture
def simulate(recast: Run, tmp_path: Path) -> Callable[..., dict[str, Any]]:
    def run(*arguments: str) -> dict[str, Any]:
        ended = recast(
            "simulate", "--clients", "3", "--tasks", "digits", "--rounds", "1", "--epochs", "1",
            "--device", "cpu", "--run-dir", "run", "--json", "report.json", *arguments,
        )  # fmt: skip
        assert ended.returncode == 0, ended.stderr
        (task,) = json.loads((tmp_path / "report.json").read_text())["tasks"]
        return task

    return run


def taken_part(tmp_path: Path) -> dict[str, set[str]]:
    """What the plug-in's parts noted, each with the processes that it ran in."""
    found: dict[str, set[str]] = {}
    for line in (tmp_path / "log").read_text().splitlines():
        what, _, process = line.rpartition(" ")
        found.setdefault(what, set()).add(process)
    return found


def test_a_task_is_learned_with_a_source_a_head_an_aggregation_and_a_transform_of_a_plugin(
    simulate: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    task = simulate(*OF_RECAST, *TRANSFORM)
    assert task["accuracy"] > 0.5
    parts = {"source", "head statistics", "head merge", "aggregation", "transform"}
    assert taken_part(tmp_path).keys() == parts


def test_a_task_is_learned_with_a_method_of_a_plugin(
    simulate: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    task = simulate("--method", "biases", "--engine", "sequential")
    assert task["coefficients"] > 100
    assert task["accuracy"] > 0.5
    assert taken_part(tmp_path).keys() == {"method"}


def test_the_processes_of_a_real_federation_find_the_plugin_too(
    recast: Run, tmp_path: Path
) -> None:
    ended = recast(
        "measure", "--transports", "link", "--clients", "2", "--tasks", "digits", "--rounds", "1",
        "--epochs", "1", "--device", "cpu", "--idle", "0", "--json", "bytes.json",
        *OF_RECAST, *TRANSFORM,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    (row,) = json.loads((tmp_path / "bytes.json").read_text())["rows"]
    assert row["accuracy"] > 0.5
    processes = taken_part(tmp_path)
    assert len(processes["transform"]) == len(processes["head statistics"]) == 2
    assert len(processes["aggregation"]) == len(processes["head merge"]) == 1
    assert processes["aggregation"].isdisjoint(processes["transform"])


@pytest.mark.parametrize(
    ("plugins", "content", "says"),
    [
        ("nowhere", None, "plug-in nowhere: No module named 'nowhere': install it, put"),
        ("torn", "1 / 0", "plug-in torn cannot be loaded (ZeroDivisionError: division by zero)"),
        (
            "twice",
            "from recast_core.wire.transforms import register_transform as r\nr('clip', print)",
            "plug-in twice cannot be loaded (RecastError: transform 'clip' is registered already",
        ),
    ],
)
def test_a_plugin_that_cannot_be_loaded_is_one_line(
    tmp_path: Path, plugins: str, content: str | None, says: str
) -> None:
    if content is not None:
        (tmp_path / f"{plugins}.py").write_text(content)
    environment = os.environ | {"PYTHONPATH": str(tmp_path), "RECAST_PLUGINS": plugins}
    ended = subprocess.run(
        [*program(), "tasks", "list"], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert ended.returncode == 2
    (line,) = ended.stderr.splitlines()
    assert line.startswith(f"recast: {says}")


def test_a_plugin_that_is_installed_is_found_by_its_entry_point(tmp_path: Path) -> None:
    (tmp_path / "grove.py").write_text("raise RuntimeError('found')\n")
    about = tmp_path / "grove-1.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: grove\nVersion: 1\n")
    (about / "entry_points.txt").write_text("[recast.plugins]\ngrove = grove\n")
    ended = subprocess.run(
        [*program(), "tasks", "list"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 2
    assert "plug-in grove (grove) cannot be loaded (RuntimeError: found)" in ended.stderr
    assert "uninstall its package" in ended.stderr


def test_the_rule_and_the_transform_of_the_document_do_what_it_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(aggregation, "_RULES", dict(aggregation._RULES))
    monkeypatch.setattr(transforms, "_MAKERS", dict(transforms._MAKERS))
    monkeypatch.setenv("RECAST_PLUGINS", "document_0,document_1")
    monkeypatch.syspath_prepend(tmp_path)
    page = (HERE.parents[1] / "docs" / "extending.md").read_text()
    # The source, the method and the head, a block between, run with the document's commands.
    rule, _, transform = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    for number, code in enumerate((rule, transform)):
        (tmp_path / f"document_{number}.py").write_text(code)
    load_plugins.cache_clear()
    assert load_plugins() == ("document_0", "document_1")
    load_plugins.cache_clear()
    contributions = [Contribution(np.full(2, n, np.float32), 1) for n in (1, 2, 60)]
    found = aggregation.aggregation("own-median")(np.ones(2, np.float32), contributions)
    assert found.dtype == np.float32
    assert found.tolist() == [3, 3]
    hyper = Hyperparameters(bits=32, transforms="clip:0.5 times:2")
    update = transforms.round_update(np.array([3, 4], np.float32), None, pb.Broadcast(), hyper, 0)
    np.testing.assert_allclose(decode(update, 2, 32), [0.6, 0.8], rtol=1e-6)


def test_without_a_plugin_its_names_are_unknown(recast: Run) -> None:
    ended = recast("simulate", *TRANSFORM, plugins="")
    assert ended.returncode == 2
    assert "unknown transform 'times'" in ended.stderr
