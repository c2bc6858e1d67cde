"""`recast tasks` and `recast predict` on a finished run, and on a server at work."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from PIL import Image

from client.data import load_dataset, parse_task
from experiments.command import cli
from experiments.command.program import program
from experiments.command.run_folder import learned, opened
from recast_core.backbones import load_backbone
from recast_core.backbones.files import read_state
from recast_core.fitting import features_of
from recast_core.settings import Settings
from server.record.registry import Registry
from server.record.rows import Measured
from tests.experiments import pausing
from tests.experiments.ends import LONG

if TYPE_CHECKING:
    from conftest import Simulated

ROOT = Path(__file__).parents[3]


def call(*args: object) -> int:
    """Run the command in this process; returns its exit code."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["recast", *map(str, args)])
        with pytest.raises(SystemExit) as caught:
            cli.main()
    assert isinstance(caught.value.code, int)
    return caught.value.code


@pytest.fixture
def asked(capfd: pytest.CaptureFixture[str]) -> Callable[..., dict[str, Any]]:
    """The JSON that a command prints; nothing else may be on standard output."""

    def ask(*args: object) -> dict[str, Any]:
        assert call(*args, "--json", "-") == 0
        found = json.loads(capfd.readouterr().out)
        assert isinstance(found, dict)
        return found

    return ask


def test_list_says_what_the_simulation_reported(
    simulated: Simulated, asked: Callable[..., dict[str, Any]], capfd: pytest.CaptureFixture[str]
) -> None:
    found = asked("tasks", "list", "--run", simulated.folder)
    assert found["run"]["status"] == "finished"
    assert found["run"]["bank"] == simulated.report["bank"]["sha256"]
    for task, reported in zip(found["tasks"], simulated.report["tasks"], strict=True):
        for key in ("name", "rounds", "accuracy", "head_only_accuracy", "clients", "classes"):
            assert task[key] == reported[key]
        assert (task["status"], task["planned"]) == ("learned", 2)
    assert call("tasks", "list", "--run", simulated.folder / "registry.sqlite") == 0
    assert "learned" in capfd.readouterr().out


def test_show_has_the_rounds_the_bytes_and_the_coefficients(
    simulated: Simulated, asked: Callable[..., dict[str, Any]]
) -> None:
    found = asked("tasks", "show", "b", "--run", simulated.folder)
    reported = simulated.report["tasks"][1]
    assert found["bytes"]["message_up"] == reported["message_bytes_up"]
    assert [entry["round"] for entry in found["history"]] == [1, 2]
    assert [entry["after_task"] for entry in found["evaluations"]] == ["b"]
    with Registry(simulated.folder / "registry.sqlite") as registry:
        wanted = registry.coefficients(1, 2)
    assert np.array_equal(np.float32(found["coefficients"]), wanted)


def test_of_a_kept_head_list_and_show_say_what_sends_nothing(
    tmp_path: Path, asked: Callable[..., dict[str, Any]], capfd: pytest.CaptureFixture[str]
) -> None:
    baselines = {"deployed": 0.25, "statistics": 0.5, "local head": 0.625, "either head": 0.5625}
    with Registry(tmp_path / "registry.sqlite") as registry:
        run = registry.start_run({"head": "backbone", "rounds": 1}, bytes(32), {}, "recast")
        registry.add_task(run, "fog")
        told = Measured(1, 1, 0.75, 0.5, 100, 2, after_task=1, baselines=baselines)
        registry.record_accuracies(run, [told])
        registry.finish_run(run, "finished")
    (task,) = asked("tasks", "list", "--run", tmp_path)["tasks"]
    assert (task["deployed_accuracy"], task["zero_byte_accuracy"]) == (0.25, 0.625)
    assert asked("tasks", "show", "fog", "--run", tmp_path)["baselines"] == baselines
    for command in (["list"], ["show", "fog"]):
        assert call("tasks", *command, "--run", tmp_path) == 0
        printed = capfd.readouterr().out
        assert all(text in printed for text in ("as deployed", "25.0 %", "62.5 %", "75.0 %"))
        assert "head only" not in printed


def test_the_newest_run_is_meant_where_none_is_named(
    simulated: Simulated, asked: Callable[..., dict[str, Any]], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    for name in ("newer", "older"):
        with Registry(tmp_path / "runs" / name / "registry.sqlite") as registry:
            registry.start_run({}, bytes(32), {}, name)
    for path in (tmp_path / "runs" / "older").iterdir():
        os.utime(path, (1, 1))
    assert asked("tasks", "list")["run"]["folder"] == "runs/newer"
    # Nobody holds the folder, so a run that calls itself running was killed.
    assert asked("tasks", "list")["run"]["status"] == "interrupted"


def model_of(simulated: Simulated, task: str) -> Any:
    with opened(simulated.folder) as (registry, run):
        return learned(registry, run, task)


def test_an_exported_task_is_a_plain_model_with_the_same_scores(
    simulated: Simulated, tiny: Callable[..., Settings], tmp_path: Path,
    asked: Callable[..., dict[str, Any]],
) -> None:  # fmt: skip
    data = tiny().tasks.split()[1].partition("=")[2]
    path = tmp_path / "b.safetensors"
    report = asked("tasks", "export", "b", "-o", path, "--data", data, "--run", simulated.folder)
    assert (report["head"], report["classes"]) == ("ridge", ["c0", "c1", "c2"])
    assert report["architecture"] == "cifar_resnet(depth=8,num_classes=3)"
    loaded = load_backbone(f"file:{path}")
    assert set(loaded.model.state_dict()) == set(load_backbone(tiny().backbone).model.state_dict())
    images = load_dataset(parse_task(data), 8)
    x = loaded.preprocess(images.x_test)
    with torch.no_grad():
        logits = loaded.model(x)
        attached = model_of(simulated, "b")
        features = features_of(attached.net, x)
        weight, bias = (loaded.model.state_dict()[f"linear.{k}"] for k in ("weight", "bias"))
    torch.testing.assert_close(logits, features @ weight.T + bias, rtol=1e-4, atol=1e-4)
    right = (logits.argmax(1).numpy() == images.y_test).mean()
    assert right == pytest.approx(report["test_accuracy"])
    assert right > 0.5


def test_without_data_the_model_is_exported_up_to_its_features(
    simulated: Simulated, tiny: Callable[..., Settings], tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    path = tmp_path / "b.safetensors"
    assert call("tasks", "export", "b", "-o", path, "--run", simulated.folder) == 0
    assert "no classifier" in capfd.readouterr().out
    state, about = read_state(path)
    assert about["head"] == "none"
    assert not [key for key in state if key.startswith("linear.")]
    backbone = load_backbone(tiny().backbone)
    backbone.model.load_state_dict(state, strict=False)
    backbone.model.linear = torch.nn.Identity()
    x = torch.randn(5, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        wanted = features_of(model_of(simulated, "b").net, x)
        torch.testing.assert_close(backbone.model(x), wanted, rtol=1e-4, atol=1e-5)
    assert call("predict", "--model", path, path) == 2
    assert "export the task again with --data" in capfd.readouterr().err


@pytest.fixture
def pictures(tiny: Callable[..., Settings], tmp_path: Path) -> tuple[list[Path], list[int]]:
    """Twelve test images of task b as PNG files, and their labels."""
    images = load_dataset(parse_task(tiny().tasks.split()[1]), 8)
    paths = []
    for index in range(12):
        paths.append(tmp_path / f"{index}.png")
        Image.fromarray(images.x_test[index]).save(paths[-1])
    return paths, images.y_test[:12].tolist()


def test_predict_names_the_class_of_images_by_task_and_by_exported_model(
    simulated: Simulated, pictures: tuple[list[Path], list[int]], tmp_path: Path,
    asked: Callable[..., dict[str, Any]], tiny: Callable[..., Settings],
) -> None:  # fmt: skip
    paths, labels = pictures
    found = asked("predict", "--task", "b", "--run", simulated.folder, *paths)
    assert [row["image"] for row in found["images"]] == [str(path) for path in paths]
    hits = sum(row["class"] == f"c{y}" for row, y in zip(found["images"], labels, strict=True))
    assert hits >= 9
    data = tiny().tasks.split()[1]
    model = tmp_path / "b.safetensors"
    asked("tasks", "export", "b", "-o", model, "--data", data, "--run", simulated.folder)
    again = asked("predict", "--model", model, *paths)
    for one, other in zip(found["images"], again["images"], strict=True):
        assert one["class"] == other["class"]
        assert one["score"] == pytest.approx(other["score"], abs=1e-3)


Refused = Callable[["Simulated", Path], list[object]]
BAD: dict[str, tuple[Refused, str]] = {
    "no run": (lambda s, f: ["tasks", "list", "--run", f], "no run in"),
    "unknown task": (lambda s, f: ["tasks", "show", "bb", "--run", s.folder], "did you mean b?"),
    "another suffix": (
        lambda s, f: ["tasks", "export", "a", "-o", f / "a.pt", "--run", s.folder], ".safetensors",
    ),
    "no such data": (
        lambda s, f: ["tasks", "export", "a", "-o", f / "a.safetensors", "--data", "npz:/none.npz",
                      "--run", s.folder], "/none",
    ),
    "one class": (
        lambda s, f: ["predict", "--task", "a", "--data", "digits@3-3", "--run", s.folder, f],
        "one class only",
    ),
    "no image": (lambda s, f: ["predict", "--task", "a", "--run", s.folder, f / "no"], "image"),
    "no picture": (
        lambda s, f: ["predict", "--task", "a", "--run", s.folder, s.folder / "registry.sqlite"],
        "cannot read image",
    ),
    "neither": (lambda s, f: ["predict", "--run", s.folder, f], "either --task or --model"),
    "no exported model": (
        lambda s, f: ["predict", "--model", next(s.folder.glob("bank-*")), f], "no exported task",
    ),
    "a finished run": (lambda s, f: ["tasks", "add", s.folder, "digits"], "--keep-running"),
    "a task that is none": (lambda s, f: ["tasks", "add", s.folder, "digts"], "did you mean"),
    "closed twice": (lambda s, f: ["tasks", "close", s.folder], "nothing to close"),
}  # fmt: skip


@pytest.mark.parametrize("what", BAD)
def test_what_cannot_be_done_is_one_line_and_exit_code_2(
    what: str, simulated: Simulated, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    make, message = BAD[what]
    assert call(*make(simulated, tmp_path)) == 2
    out = capfd.readouterr()
    (line,) = out.err.splitlines()
    assert line.startswith("recast: ")
    assert message in line
    assert list(tmp_path.iterdir()) == []


def test_where_a_tasks_own_data_are_elsewhere_predict_says_how_to_name_others(
    simulated: Simulated, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(simulated.folder, tmp_path / "run")
    with closing(sqlite3.connect(tmp_path / "run" / "registry.sqlite")) as registry:
        registry.execute("UPDATE tasks SET source = 'npz:away.npz'")
        registry.commit()
    predict = ("predict", "--task", "b", "--run", tmp_path / "run", tmp_path / "one.png")
    assert call(*predict) == 2
    (line,) = capfd.readouterr().err.splitlines()
    assert "away.npz" in line
    assert line.endswith("the task's own data: name others to fit its head on with --data")
    assert call(*predict, "--data", "npz:elsewhere.npz") == 2
    assert "task's own data" not in capfd.readouterr().err


def test_the_bank_that_a_run_needs_is_named_where_it_is_missing(
    simulated: Simulated, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    copy = tmp_path / "registry.sqlite"
    copy.write_bytes((simulated.folder / "registry.sqlite").read_bytes())
    assert call("tasks", "export", "a", "-o", tmp_path / "a.safetensors", "--run", tmp_path) == 2
    assert "no bank at" in capfd.readouterr().err


def test_a_running_server_learns_what_is_added_and_ends_on_sigterm(
    tiny: Callable[..., Settings], command_line: Callable[[Settings], list[str]], tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    first, second = tiny().tasks.split()
    options = command_line(tiny(tasks=first, run_dir=str(folder)))
    server = subprocess.Popen(
        [*program(), "simulate",
         "--clients", "2", "--keep-running",
         *options],
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT),
             "RECAST_PLUGINS": pausing.NAME},
    )  # fmt: skip
    assert server.stderr is not None
    seen: list[str] = []
    added = False
    for line in server.stderr:
        seen.append(line)
        if line.startswith("a: accuracy") and not added:
            assert call("tasks", "add", folder, second) == 0
            added = True
        if "waiting for another" in line and any(told.startswith("b: accuracy") for told in seen):
            break
    assert "waiting for another" in seen[-1], seen
    server.send_signal(signal.SIGTERM)
    _, rest = server.communicate(timeout=LONG)
    assert server.returncode == 0, "".join(seen) + rest
    with Registry(folder / "registry.sqlite") as registry:
        assert registry.runs()[0].status == "finished"
        assert [(task.number, task.name) for task in registry.tasks(1)] == [(1, "a"), (2, "b")]
        assert registry.last_rounds(1) == {1: 1, 2: 1}
        assert len(registry.accuracies(1)) == 3


def test_help_of_every_command_has_an_example_and_does_not_wait_for_torch() -> None:
    script = (
        "import sys\n"
        "from experiments.command.cli import recast\n"
        "for name in ([], ['list'], ['show'], ['export'], ['add'], ['close']):\n"
        "    recast.main(['tasks', *name, '--help'], standalone_mode=False)\n"
        "recast.main(['predict', '--help'], standalone_mode=False)\n"
        "heavy = {'torch', 'flwr', 'numpy', 'sqlalchemy'} & sys.modules.keys()\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("Example: recast") == 7
