"""A run that kept the deployed classifier gives whole models: exported, and to predict with."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open

from client.data import load_dataset, parse_task
from experiments.command.predict import predict
from experiments.command.run_folder import learned, opened
from experiments.command.tasks_export import export
from experiments.engines.folded import FoldedGrid
from recast_core.backbones import load_backbone
from recast_core.errors import RecastError
from recast_core.settings import Settings
from server.app import Conditions, run_federation
from server.exchange.observer import LogObserver
from server.flower import server_identity

TASK = "digits[50%:]+contrast:4"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The packaged classifier adapts to pale digits by its own weights' coefficients."""
    path = tmp_path_factory.mktemp("kept")
    settings = Settings(
        backbone="digits_resnet20", tasks=f"pale={TASK}", head="backbone", rounds=1, epochs=1,
        target="layer3.*conv*", partition="iid", residual=True, bank="none", device="cpu",
    )  # fmt: skip
    with server_identity():
        run_federation(
            FoldedGrid(2, settings),
            settings,
            path,
            LogObserver(),
            conditions=Conditions(patience=0),
        )
    return path


def test_the_exported_file_is_a_whole_classifier_with_statistics_of_the_data(
    folder: Path, tmp_path: Path
) -> None:
    plain, adapted = tmp_path / "plain.safetensors", tmp_path / "adapted.safetensors"
    without = export("pale", plain, "", folder)
    found = export("pale", adapted, TASK, folder)
    assert without["head"] == found["head"] == "backbone"
    assert without["classes"] == found["classes"] == [str(digit) for digit in range(10)]
    with safe_open(adapted, "pt") as file:
        assert json.loads(file.metadata()["classes"]) == found["classes"]
    data, accuracies = load_dataset(parse_task(TASK), 16), []
    for path in (plain, adapted):
        loaded = load_backbone(f"file:{path}")
        with torch.no_grad():
            predicted = loaded.model(loaded.preprocess(data.x_test)).argmax(1)
        accuracies.append(float((predicted.numpy() == data.y_test).mean()))
    assert accuracies[1] == pytest.approx(found["test_accuracy"])
    assert accuracies[1] > accuracies[0] + 0.2


def test_predictions_need_no_head_fitted_and_use_statistics_of_the_tasks_own_images(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = load_dataset(parse_task(TASK), 16)
    paths = []
    for index in range(12):
        paths.append(tmp_path / f"{index}.png")
        Image.fromarray(data.x_test[index]).save(paths[-1])
    found = predict(paths, "pale", folder, "", None)
    right = [row["class"] == str(data.y_test[i]) for i, row in enumerate(found["images"])]
    assert np.mean(right) > 0.7
    assert "classifier" in capsys.readouterr().out


def test_data_of_other_classes_are_refused(
    folder: Path, digits_file: Path, tmp_path: Path, tiny: Callable[..., Settings]
) -> None:
    with pytest.raises(RecastError, match=r"has the classes c0, c1, c2 and the task 0, 1"):
        export("pale", tmp_path / "x.safetensors", f"npz:{digits_file}", folder)


def test_data_whose_classes_are_in_another_order_are_mapped_by_name(
    folder: Path, tmp_path: Path
) -> None:
    data, order = load_dataset(parse_task(TASK), 16), np.array([3, 0, 9, 1, 8, 2, 7, 4, 6, 5])
    place = np.argsort(order)
    np.savez(
        tmp_path / "mixed.npz", x_train=data.x_train, x_test=data.x_test,
        y_train=place[data.y_train], y_test=place[data.y_test],
        classes=[data.classes[index] for index in order],
    )  # fmt: skip
    there = export("pale", tmp_path / "there.safetensors", TASK, folder)
    found = export("pale", tmp_path / "x.safetensors", f"npz:{tmp_path / 'mixed.npz'}", folder)
    assert found["classes"] == there["classes"]
    assert found["test_accuracy"] == pytest.approx(there["test_accuracy"], abs=1e-6)


def test_no_model_is_made_of_a_task_of_another_method_and_a_line_says_what_to_do(
    tiny: Callable[..., Settings], tmp_path: Path
) -> None:
    settings = tiny(method="norm-groups:1")
    with server_identity():
        run_federation(
            FoldedGrid(2, settings),
            settings,
            tmp_path,
            LogObserver(),
            conditions=Conditions(patience=0),
        )
    said = "trained norm-groups:1, .*: name another run, or learn the task with --method recast"
    with opened(tmp_path) as (registry, run), pytest.raises(RecastError, match=said):
        learned(registry, run, "a")
