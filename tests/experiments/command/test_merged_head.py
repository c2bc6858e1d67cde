"""A run whose server merged the heads: what is exported and predicted with has that head."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image

from client.data import load_dataset, parse_task
from experiments.command.predict import predict
from experiments.command.run_folder import learned, opened
from experiments.command.tasks import rewind
from experiments.command.tasks_export import export
from experiments.engines.folded import FoldedGrid
from experiments.session.library import library_of
from recast_core.backbones import load_backbone
from recast_core.errors import RecastError
from recast_core.fitting import features_of
from recast_core.settings import Settings
from recast_core.wire.head_bytes import unpack_head
from server.app import Conditions, run_federation
from server.exchange.observer import LogObserver
from server.flower import server_identity


@pytest.fixture
def folder(tiny: Callable[..., Settings], tmp_path: Path) -> Path:
    """Two clients and two rounds, evaluated after each, of class means that the server merges."""
    settings = tiny(head="means", rounds=2, evaluate_every=1)
    with server_identity():
        grid, run = FoldedGrid(2, settings), tmp_path / "run"
        run_federation(grid, settings, run, LogObserver(), conditions=Conditions(patience=0.0))
    return run


def test_the_exported_model_has_the_head_that_the_server_merged(
    tiny: Callable[..., Settings],
    folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path, data = tmp_path / "b.safetensors", tiny().tasks.split()[1].partition("=")[2]
    report = export("b", path, "", folder)
    assert (report["head"], report["classes"]) == ("merged", ["c0", "c1", "c2"])
    assert "head that the run's server merged of 3 classes" in capsys.readouterr().out
    loaded, images = load_backbone(f"file:{path}"), load_dataset(parse_task(data), 8)
    pixels = loaded.preprocess(images.x_test)
    with opened(folder) as (registry, run):
        model, found = learned(registry, run, "b"), registry.head(run.id, 2)
        kept = library_of(registry, run, {})["b"]
    assert found is not None
    merged = unpack_head(found[1], "means")
    assert torch.equal(kept.weight, merged.weight)
    with torch.no_grad():
        wanted, scores = merged(features_of(model.net, pixels)), loaded.model(pixels)
    assert float((scores - wanted).abs().max()) <= 1e-4 * float(wanted.abs().max())
    right = scores.argmax(1) == torch.from_numpy(images.y_test)
    measured = export("b", path, data, folder)
    assert (measured["head"], measured["test_accuracy"]) == ("merged", float(right.float().mean()))
    Image.fromarray(images.x_test[0]).save(tmp_path / "one.png")
    one = [tmp_path / "one.png"]
    predicted = [predict(one, "b", folder, "", None), predict(one, "", None, "", path)]
    wanted_class = report["classes"][int(wanted[0].argmax())]
    assert [found["images"][0]["class"] for found in predicted] == [wanted_class] * 2
    assert capsys.readouterr().out.count("that the run's server merged") == 3


def test_a_head_of_undone_rounds_is_not_exported(
    tiny: Callable[..., Settings], folder: Path, tmp_path: Path
) -> None:
    rewind("b", 1, folder)
    path, data = tmp_path / "b.safetensors", tiny().tasks.split()[1].partition("=")[2]
    with pytest.raises(RecastError, match="has merged no head for what task 'b' is now"):
        export("b", path, "", folder)
    assert not path.exists()
    assert export("b", path, data, folder)["head"] == "ridge"
    assert export("a", path, "", folder)["head"] == "merged"
