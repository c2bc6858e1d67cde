"""`recast bank`: its JSON, its file, what an interrupt leaves, and its one-line errors."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
import safetensors.torch
import torch

from client.data import forget_datasets
from experiments.command import bank, cli
from experiments.command.bank import BankPlan
from recast_core import RecastError, TemplateBank, attach
from recast_core.backbones import load_backbone
from recast_core.backbones.cifar_resnet import CifarResNet
from recast_core.sources.fine_tune import Losses
from recast_core.sources.held_out_shifts import Gain, hardly_falls
from tests.experiments.ends import LONG, patiently

ROOT = Path(__file__).parents[3]
# However late we are to interrupt it, it is not done.
WAITING = """
import time
from recast_core.sources.source_networks import SourceFolder
save = SourceFolder.save
def saved(self, index, source):
    if index == 2:
        time.sleep(3600)
    save(self, index, source)
SourceFolder.save = saved
"""
QUICK = ["--epochs", "1", "--sections", "3", "--rank", "2", "--device", "cpu"]


@pytest.fixture
def backbone(tmp_path: Path) -> str:
    torch.manual_seed(0)
    state = {k: v.contiguous() for k, v in CifarResNet(8, 3).state_dict().items()}
    path = tmp_path / "net.safetensors"
    safetensors.torch.save_file(state, path, {"size": "8"})
    return f"file:{path}"


@pytest.fixture
def data(tmp_path: Path) -> str:
    random = np.random.default_rng(0)
    path = tmp_path / "data.npz"
    arrays = {
        "x_train": random.integers(0, 256, (48, 8, 8), dtype=np.uint8),
        "y_train": np.arange(48) % 3,
        "x_test": random.integers(0, 256, (24, 8, 8), dtype=np.uint8),
        "y_test": np.arange(24) % 3,
    }
    np.savez(path, **arrays, classes=np.array(["a", "b", "c"]))
    return f"npz:{path}"


def run(*arguments: str) -> int:
    return cli._guarded(lambda: cli.recast.main(list(arguments), standalone_mode=False))


def test_a_bank_is_written_and_reported(
    backbone: str, data: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, told = tmp_path / "bank.safetensors", tmp_path / "bank.json"
    command = ["bank", backbone, "--data", data, "-o", str(out), "--json", str(told), *QUICK]
    options = ["--sources", "5", "--directions", "4", "--holdout", "weather"]
    assert run(*command, *options) == 0
    report = json.loads(told.read_text())
    bank = TemplateBank.load(out)
    assert report["sources"] == 5
    assert (report["sections"], report["directions"], report["coefficients"]) == (3, 4, 12)
    assert (report["bytes"], report["sha256"]) == (out.stat().st_size, bank.sha256.hex())
    assert report["diverged"] == []
    assert np.array(report["spread"]).shape == (3, 4)
    assert (np.diff(report["spread"]) <= 1e-12).all()
    (weather,) = report["holdout"].values()
    assert [row["shift"] for row in weather["shifts"]] == ["fog:3", "snow:3", "rain:3"]
    for row in weather["shifts"]:
        for key in ("deployed", "statistics", "coefficients", "full"):
            assert 0 <= row[key] <= 1
    assert "share" in weather
    assert bank.sent == 12
    assert not (tmp_path / "bank.safetensors.sources").exists()
    attach(load_backbone(backbone).model, bank)
    shown = capsys.readouterr()
    assert bank.sha256.hex() in shown.out
    assert "source 5/5" in shown.err


def test_a_bank_along_which_the_loss_hardly_falls_is_warned_of(
    backbone: str, data: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Sources that have not moved have no directions worth the name."""
    options = ["--sources", "2", "--directions", "2", "--shifts", "fog", "--learning-rate", "1e-7"]
    told = ["--json", str(tmp_path / "told.json")]
    assert (
        run("bank", backbone, "--data", data, "-o", str(tmp_path / "b"), *QUICK, *options, *told)
        == 0
    )
    shown = " ".join(capsys.readouterr().out.split())
    assert "warning: under unseen pairs the loss falls by" in shown
    assert "of little use there; make sources that are nearer (--shifts)" in shown
    (trials,) = json.loads((tmp_path / "told.json").read_text())["holdout"].values()
    assert all(row["loss"] > 0.5 and abs(row["fall"]) < 0.1 for row in trials["shifts"])


def test_nothing_is_warned_of_where_the_loss_falls_or_there_is_none() -> None:
    def gain(loss: float, fall: float) -> Gain:
        return Gain("fog:3", 0.5, 0.6, 0.7, 0.8, loss, fall)

    assert hardly_falls([gain(2.0, 0.4), gain(1.0, 0.05)]) is None
    assert hardly_falls([gain(0.1, 0.0)]) is None
    assert hardly_falls([gain(2.0, 0.06), gain(1.0, 0.04)]) == pytest.approx(0.05)
    assert hardly_falls([gain(float("nan"), float("nan"))]) is not None


def test_the_same_command_makes_the_same_bank(backbone: str, data: str, tmp_path: Path) -> None:
    for name in ("one", "two"):
        path = str(tmp_path / name)
        options = ["--sources", "3", "--directions", "2", "--shifts", "fog:4,motion,noise"]
        assert run("bank", backbone, "--data", data, "-o", path, *QUICK, *options) == 0
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


def test_fewer_sources_than_directions_are_said_and_reduce_them(
    backbone: str, data: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "bank.safetensors"
    options = ["--sources", "2", "--directions", "12", "--shifts", "gauss"]
    assert run("bank", backbone, "--data", data, "-o", str(out), *QUICK, *options) == 0
    assert "12 were asked for, the bank has 2" in capsys.readouterr().err
    assert TemplateBank.load(out).sent == 6


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--holdout", "smog"], "unknown family"),
        (["--shifts", "fog:6"], "severity"),
        (["--shifts", "saturate"], "colour"),
        (["--shifts", "fog", "--holdout", "weather"], "no shift is left"),
        (["--sections", "99"], "sections"),
        (["--bits", "1"], "bits"),
        (["--sources", "0"], "sources"),
        (["--learning-rate", "0"], "learning rate"),
    ],
)
def test_what_cannot_be_is_one_line_and_writes_nothing(
    backbone: str,
    data: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    options: list[str],
    said: str,
) -> None:
    out = tmp_path / "bank.safetensors"
    assert run("bank", backbone, "--data", data, "-o", str(out), *QUICK, *options) == 2
    assert said in capsys.readouterr().err.splitlines()[-1]
    assert not out.exists()


@pytest.mark.parametrize("bad", [1, 4])
def test_sources_that_diverged_are_left_out_and_said(
    backbone: str,
    data: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    bad: int,
) -> None:
    asked = iter(range(4))
    monkeypatch.setattr(Losses, "diverged", property(lambda _: next(asked) < bad))
    out, told = tmp_path / "bank.safetensors", tmp_path / "bank.json"
    options = ["--sources", "4", "--directions", "2", "--shifts", "noise", "--json", str(told)]
    code = run("bank", backbone, "--data", data, "-o", str(out), *QUICK, *options)
    errors = capsys.readouterr().err
    assert errors.count("diverged (loss") == bad
    if bad == 4:
        assert code == 2
        assert "every source network diverged" in errors.splitlines()[-1]
        return
    assert code == 0
    report = json.loads(told.read_text())
    assert (report["sources"], len(report["diverged"])) == (3, 1)


def test_a_classifier_of_other_classes_is_refused(
    data: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = str(tmp_path / "bank.safetensors")
    assert run("bank", "glyph_resnet20", "--data", data, "-o", out) == 2
    assert "3" in capsys.readouterr().err


def test_one_test_image_is_refused_before_any_source_is_made(
    backbone: str, data: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with np.load(data.removeprefix("npz:")) as file:
        arrays = dict(file)
    np.savez(tmp_path / "few.npz", **arrays | {k: arrays[k][:1] for k in ("x_test", "y_test")})
    out = tmp_path / "bank.safetensors"
    few = f"npz:{tmp_path / 'few.npz'}"
    assert run("bank", backbone, "--data", few, "-o", str(out), *QUICK) == 2
    assert "has 1 test images: give at least 2" in capsys.readouterr().err.splitlines()[-1]
    assert not out.with_name("bank.safetensors.sources").exists()


def test_an_interrupted_bank_keeps_its_sources_and_goes_on(
    backbone: str, data: str, tmp_path: Path
) -> None:
    out = tmp_path / "bank.safetensors"
    command = [
        *(sys.executable, "-m", "experiments.command.cli", "bank", backbone, "--data", data),
        *("-o", str(out), *QUICK, "--sources", "6", "--directions", "2", "--shifts", "blur"),
    ]
    (tmp_path / "waiting.py").write_text(WAITING)
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        env=environment | {"RECAST_PLUGINS": "waiting", "PYTHONPATH": str(tmp_path)},
        stderr=subprocess.PIPE,
        text=True,
        # A shell may have told its background jobs to ignore the signal.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    folder = tmp_path / "bank.safetensors.sources"
    patiently(lambda: process.poll() is not None or len(list(folder.glob("source-*"))) == 2)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=LONG)
    assert process.returncode == cli.INTERRUPTED
    assert "kept" in errors.splitlines()[-1]
    assert not out.exists()
    assert len(list(folder.glob("source-*.safetensors"))) == 2
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0
    assert sum(line.endswith("kept") for line in done.stderr.splitlines()) == 2
    assert out.exists()
    assert not folder.exists()


def test_finished_sources_of_other_images_are_refused_and_of_the_same_elsewhere_are_not(
    backbone: str,
    data: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The images decide, not how they are named: a file may be written again in between."""
    out, file = str(tmp_path / "bank.safetensors"), Path(data.removeprefix("npz:"))
    few = [*QUICK, "--directions", "2", "--shifts", "blur", "--sources"]
    with monkeypatch.context() as stopped:
        stopped.setattr(bank, "principal_directions", Mock(side_effect=KeyboardInterrupt))
        assert run("bank", backbone, "--data", data, "-o", out, *few, "2") == cli.INTERRUPTED
    arrays = dict(np.load(file))
    np.savez(file, **arrays | {"x_train": 255 - arrays["x_train"]})
    forget_datasets()  # another process would have none of them
    assert run("bank", backbone, "--data", data, "-o", out, *few, "2") == 2
    assert "sources of other settings or data (data)" in capsys.readouterr().err.splitlines()[-1]
    np.savez(file.with_name("moved.npz"), **arrays | {"x_test": 255 - arrays["x_test"]})
    moved = f"npz:{file.with_name('moved.npz')}"
    assert run("bank", backbone, "--data", moved, "-o", out, *few, "2") == 0
    assert capsys.readouterr().err.count(": kept") == 2


def test_a_plan_that_cannot_be_is_refused() -> None:
    for change, said in (
        ({"sources": 10**20}, "at most 10000"), ({"seed": -1}, "0 to 4294967295"),
        ({"seed": 1 << 32}, "0 to 4294967295"),
    ):  # fmt: skip
        with pytest.raises(RecastError, match=said):
            BankPlan(**change)
    with pytest.raises(RecastError, match="epochs is 0"):
        BankPlan(epochs=0)
    for bits in (0, 1, 9):
        with pytest.raises(RecastError, match=f"bits is {bits}: give 2 to 8"):
            BankPlan(bits=bits)


def test_a_folder_for_output_is_refused_before_any_source_is_made(
    backbone: str, data: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "banks"
    folder.mkdir()
    assert run("bank", backbone, "--data", data, "-o", str(folder), *QUICK) == 2
    assert "is a folder: name a file" in capsys.readouterr().err.splitlines()[-1]
    assert not list(folder.iterdir())
    assert not folder.with_name("banks.sources").exists()
