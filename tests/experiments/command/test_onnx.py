"""A task as ONNX: onnxruntime, without PyTorch, computes what the task's model does."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch

import recast
from experiments.command.tasks_export import export
from recast_core.errors import RecastError
from recast_core.settings import Settings

IMAGES = torch.rand(5, 3, 8, 8, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def run(tiny: Callable[..., Settings], tmp_path_factory: pytest.TempPathFactory) -> recast.Run:
    settings = tiny(run_dir=str(tmp_path_factory.mktemp("onnx") / "run"))
    values = {key.replace("-", "_"): value for key, value in settings.as_dict().items()}
    return recast.simulate(clients=2, **values)


def computed(path: Path, **inputs: Any) -> np.ndarray:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (found,) = session.run(None, inputs)
    return np.asarray(found)


def close(found: np.ndarray, wanted: torch.Tensor) -> None:
    assert found.shape == tuple(wanted.shape)
    scale = float(wanted.abs().max())
    assert float(np.abs(found - wanted.numpy()).max()) <= 1e-4 * scale


def test_a_merged_task_agrees_and_says_what_it_is(
    run: recast.Run, digits_file: Path, tmp_path: Path
) -> None:
    path, data = tmp_path / "a.onnx", f"npz:{digits_file}"
    told = export("a", path, data, run.folder)
    export("a", tmp_path / "a.safetensors", data, run.folder)
    plain = run.library().export(run.model("a"), "a").eval()
    with torch.no_grad():
        close(computed(path, images=IMAGES.numpy()), plain(IMAGES))
    assert told["difference"] <= 1e-4
    meta = onnxruntime.InferenceSession(str(path)).get_modelmeta().custom_metadata_map
    assert json.loads(meta["classes"]) == ["c0", "c1", "c2"]
    assert (meta["task"], meta["size"]) == ("a", "8")


def test_kilobytes_switch_one_model_to_another_task(
    run: recast.Run, digits_file: Path, tmp_path: Path
) -> None:
    folder, tasks = tmp_path / "sw", run.library()
    for name, data in (("a", f"npz:{digits_file}"), ("b", f"npz:{digits_file}+inverted")):
        export(name, folder, data, run.folder, "onnx-tasks")
    written = (folder / "model.onnx").stat().st_mtime_ns
    assert sorted(path.name for path in folder.iterdir()) == [
        "a.npz", "b.npz", "model.json", "model.onnx",
    ]  # fmt: skip
    logits = {}
    for name in ("a", "b"):
        path = folder / f"{name}.npz"
        assert path.stat().st_size < 4096
        with np.load(path) as task:
            told = {key: task[key] for key in ("coefficients", "weight", "bias")}
        logits[name] = computed(folder / "model.onnx", images=IMAGES.numpy(), **told)
        net = run.model(name)
        with torch.no_grad(), tasks.use(net, name):
            close(logits[name], net(IMAGES))
    assert not np.allclose(logits["a"], logits["b"], atol=1e-3)
    assert (folder / "model.onnx").stat().st_mtime_ns == written


def test_what_cannot_be_is_refused_in_one_line(
    run: recast.Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cases = [
        (("a", tmp_path / "x", "", run.folder, "onx"), "unknown format 'onx' .did you mean onnx"),
        (("a", tmp_path / "x.pt", "", run.folder, "onnx"), "name a file that ends in .onnx"),
        (("a", tmp_path / "x.onnx", "", run.folder, "onnx-tasks"), "writes a folder, name one"),
        (("a", tmp_path / "x", "", run.folder, "onnx-tasks"), "a switch needs the task's head"),
    ]
    for arguments, message in cases:
        with pytest.raises(RecastError, match=message):
            export(*arguments)
    monkeypatch.setattr("experiments.command.onnx_file.find_spec", lambda name: None)
    with pytest.raises(RecastError, match=r"ONNX needs onnx: `pip install 'recast-fl\[onnx\]'`"):
        export("a", tmp_path / "x.onnx", "", run.folder)
    assert not list(tmp_path.iterdir())
