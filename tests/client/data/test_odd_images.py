"""Images that can be read and can hardly be meant."""

import logging
from pathlib import Path

import numpy as np
import pytest

from client.data.arrays import Dataset
from client.data.folder import folder_task_data
from client.data.odd_images import image_doubts
from client.data.sources import load_dataset
from recast_core.errors import RecastError
from recast_core.task_spec import parse_task

CLASSES = ("cat", "dog")


def _data(**changed: object) -> Dataset:
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (60, 6, 6), dtype=np.uint8)
    labels = np.arange(60, dtype=np.int64) % 2
    parts: dict[str, object] = {
        "x_train": images[:40], "y_train": labels[:40],
        "x_test": images[40:], "y_test": labels[40:], "classes": CLASSES,
    }  # fmt: skip
    return Dataset(**(parts | changed))  # type: ignore[arg-type]


PLAIN = _data()


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({}, []),
        ({"x_train": PLAIN.x_train // 16}, ["no training image has a pixel above 15 of 255"]),
        ({"x_test": PLAIN.x_test // 128}, ["no test image has a pixel above 1 of 255"]),
        ({"x_test": PLAIN.x_train[:20]}, ["20 of 20 test images are training images too"]),
        (
            {"x_train": np.repeat(PLAIN.x_train[:20], 2, axis=0)},
            ["40 training images are the same in several classes, such as cat, dog"],
        ),
        (
            {"x_train": np.where((PLAIN.y_train == 1)[:, None, None], 0, PLAIN.x_train)},
            ["all training images of dog are the same"],
        ),
        ({"classes": ("cat", "cat")}, ["several classes are named cat"]),
    ],
)
def test_what_teaches_or_measures_something_else_is_said(
    changed: dict[str, object], says: list[str]
) -> None:
    found = image_doubts(_data(**changed))
    assert len(found) == len(says)
    assert all(doubt.startswith(said) for doubt, said in zip(found, says, strict=True))


def test_one_image_in_a_hundred_and_images_without_a_label_are_no_doubt() -> None:
    labels = PLAIN.y_train.copy()
    labels[:10] = -1
    twice = PLAIN.x_train.copy()
    twice[:10] = twice[10:20]  # the same images, with a label and without
    test = PLAIN.x_test.copy()
    test[0] = PLAIN.x_train[0]
    assert not image_doubts(_data(x_train=twice, y_train=labels, x_test=PLAIN.x_test))
    assert not image_doubts(_data(x_test=test))


@pytest.mark.parametrize("client", [False, True])
def test_a_file_and_a_clients_own_are_doubted_once(
    client: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data = _data(x_train=PLAIN.x_train // 16)
    parts = {key: getattr(data, key) for key in ("x_train", "y_train", "x_test", "y_test")}
    np.savez(tmp_path / "pets.npz", **parts, classes=np.array(CLASSES))
    with caplog.at_level(logging.WARNING, "recast.data"):
        for seed in (0, 1):
            if client:
                folder_task_data(tmp_path, "pets", 6, seed)
            else:
                load_dataset(parse_task(f"npz:{tmp_path / 'pets.npz'}"), 6, seed)
    assert [
        record.getMessage().partition(": ")[2][:17]
        for record in caplog.records
        if record.name == "recast.data"
    ] == ["no training image"]


@pytest.mark.parametrize(
    ("classes", "says"),
    [
        (["cat", ""], "a class without a name in .*pets.npz"),
        (["cat", " \u200b"], "a class without a name"),
        (["cat", 300 * "x"], "use up to 200 characters"),
    ],
)
def test_names_that_nothing_can_be_recorded_under_are_refused_where_they_are_read(
    classes: list[str], says: str, tmp_path: Path
) -> None:
    parts = {key: getattr(PLAIN, key) for key in ("x_train", "y_train", "x_test", "y_test")}
    np.savez(tmp_path / "pets.npz", **parts, classes=np.array(classes))
    with pytest.raises(RecastError, match=says):
        load_dataset(parse_task(f"npz:{tmp_path / 'pets.npz'}"), 6)


def test_classes_of_a_file_without_a_training_image_are_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    parts = {key: getattr(PLAIN, key) for key in ("x_train", "y_train", "x_test", "y_test")}
    np.savez(tmp_path / "pets.npz", **parts, classes=np.array([*CLASSES, "emu"]))
    with caplog.at_level(logging.WARNING, "recast.data"):
        load_dataset(parse_task(f"npz:{tmp_path / 'pets.npz'}"), 6)
    assert [
        record.getMessage().partition(": ")[2]
        for record in caplog.records
        if record.name == "recast.data"
    ] == ["no training image of emu"]
