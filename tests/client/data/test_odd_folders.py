"""Class folders that can hardly be meant, as archives of data sets have them."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from pathlib import Path

import pytest
from PIL import Image

from client.data import Dataset, folder_task_data, load_dataset, parse_task
from recast_core.classes import class_name
from recast_core.errors import RecastError


def _images(folder: Path, names: Iterable[str], count: int = 4) -> None:
    for name in names:
        (folder / name).mkdir(parents=True, exist_ok=True)
        for index in range(count):
            Image.new("L", (8, 8), index).save(folder / name / f"{index}.png")


def _load(folder: Path) -> Dataset:
    load_dataset.cache_clear()
    return load_dataset(parse_task(f"x=folder:{folder}"), 8)


@pytest.mark.parametrize(
    ("splits", "flat"),
    [
        (["seg_train/seg_train", "seg_test/seg_test"], ["seg_pred/seg_pred"]),
        (["asl_alphabet_train/asl_alphabet_train"], ["asl_alphabet_test/asl_alphabet_test"]),
        (["train_1", "train_2", "test_1"], []),
        (["Pets-Training", "Pets-Validation"], []),
    ],
)
def test_splits_of_odd_names_are_no_classes(
    tmp_path: Path, splits: list[str], flat: list[str]
) -> None:
    for split in splits:
        _images(tmp_path / split, ["cat", "dog"])
    _images(tmp_path, flat)
    with pytest.raises(RecastError, match="look like splits: name them train/ and test/") as error:
        _load(tmp_path)
    assert "\n" not in str(error.value)


def test_a_word_of_splits_alone_makes_no_split(tmp_path: Path) -> None:
    _images(tmp_path, ["train_station/day", "train_station/night", "bus_station", "test_tube"])
    assert _load(tmp_path).classes == ("bus_station", "test_tube", "train_station")


@pytest.mark.parametrize("held", ["images", "unknown", "test"])
def test_a_test_split_without_a_class_of_the_training_images_is_left_alone(
    tmp_path: Path, held: str, caplog: pytest.LogCaptureFixture
) -> None:
    _images(tmp_path / "train", ["cat", "dog"])
    _images(tmp_path / "test", [held])
    with caplog.at_level(logging.INFO, "recast.data"):
        data = _load(tmp_path)
    assert (data.classes, len(data.x_train), len(data.x_test)) == (("cat", "dog"), 6, 2)
    assert "test/ beside train/ without a class of it" in caplog.text
    _images(tmp_path / "val", ["cat", "dog"], 3)
    assert len(_load(tmp_path).x_test) == 6


def test_a_client_may_test_on_classes_that_it_does_not_train(tmp_path: Path) -> None:
    _images(tmp_path / "task" / "train", ["cat"])
    _images(tmp_path / "task" / "test", ["dog"])
    data = folder_task_data(tmp_path, "task", 8, classes=("cat", "dog"))
    assert data is not None
    assert data.y_test.tolist() == [1, 1, 1, 1]


def test_classes_without_a_training_image_are_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    _images(tmp_path / "train", ["cat", "dog"])
    _images(tmp_path / "test", ["cat", "dog", "emu"])
    with caplog.at_level(logging.INFO, "recast.data"):
        assert _load(tmp_path).classes == ("cat", "dog", "emu")
    assert "no training image of emu" in caplog.text


@pytest.mark.parametrize("copies", [["color", "grayscale"], ["fold1", "fold2", "fold3"]])
def test_copies_of_the_class_folders_are_doubted(
    tmp_path: Path, copies: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    for copy in copies:
        _images(tmp_path / copy, ["scab", "rust"])
    with caplog.at_level(logging.WARNING, "recast.data"):
        _load(tmp_path)
    assert (
        "folders of the same names (rust, scab): if those are the classes, give one folder, "
        in (caplog.text)
    )
    assert str(tmp_path / copies[0]) in caplog.text


def test_class_folders_at_any_depth_are_pointed_at(tmp_path: Path) -> None:
    _images(tmp_path / "ILSVRC" / "Data" / "CLS-LOC" / "train", ["n01440764", "n01443537"])
    _images(tmp_path / "ILSVRC" / "Data" / "CLS-LOC", ["val"])
    with pytest.raises(RecastError, match="Data/CLS-LOC holds the class folders: give that"):
        _load(tmp_path)


def test_a_clients_single_class_may_hold_folders(tmp_path: Path) -> None:
    _images(tmp_path / "task" / "cat", ["monday", "tuesday"])
    data = folder_task_data(tmp_path, "task", 8, classes=("cat", "dog"))
    assert data is not None
    assert len(data.x_train) + len(data.x_test) == 8


def test_a_link_to_all_classes_is_no_class(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    _images(tmp_path, ["cat", "dog"])
    (tmp_path / "all").symlink_to(tmp_path, target_is_directory=True)
    with caplog.at_level(logging.INFO, "recast.data"):
        assert _load(tmp_path).classes == ("cat", "dog")
    assert "links to a folder above" in caplog.text


@pytest.mark.parametrize(
    ("written", "name"),
    [
        ("cat\nbig", "cat big"),
        ("\ufeffcat", "cat"),
        ("cat\u200b", "cat"),
        ("cat\xa0", "cat"),
        ("cat\r\n", "cat"),
        ("\U0001f468\u200d\U0001f33e", "\U0001f468\u200d\U0001f33e"),
    ],
)
def test_what_is_not_seen_makes_no_other_class(written: str, name: str) -> None:
    assert class_name(written) == name


def test_class_folders_that_look_alike_are_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    _images(tmp_path, ["cat", "c\u0430t", "dog"])
    assert len(_load(tmp_path).classes) == 3
    assert "classes 'cat' and 'c\u0430t' (CYRILLIC SMALL LETTER A) look alike" in caplog.text
