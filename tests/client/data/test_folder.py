"""Folders of images as they lie around: names of splits, what systems leave, links."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from client.data import Dataset, folder_task_data, load_dataset, parse_task
from client.data.folder import what_is_there
from recast_core.errors import RecastError


def _images(folder: Path, names: Iterable[str] = ("cat", "dog"), count: int = 5) -> None:
    for place, name in enumerate(names):
        (folder / name).mkdir(parents=True, exist_ok=True)
        for index in range(count):
            pixels = np.full((8, 8, 3), 60 * place + index, np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{index}.png")


def _load(folder: Path) -> Dataset:
    load_dataset.cache_clear()
    return load_dataset(parse_task(f"x=folder:{folder}"), 8)


def _sizes(data: Dataset) -> tuple[tuple[str, ...], int, int]:
    return data.classes, len(data.x_train), len(data.x_test)


@pytest.mark.parametrize(
    "train", ["train", "Train", "TRAINING", "train_set", "trn", "train-images"]
)
@pytest.mark.parametrize(
    "test", ["test", "Test", "testing", "valid", "Validation", "VAL", "dev", "Eval"]
)
def test_splits_go_by_their_usual_names_in_any_case(tmp_path: Path, train: str, test: str) -> None:
    _images(tmp_path / train)
    _images(tmp_path / test, count=2)
    assert _sizes(_load(tmp_path)) == (("cat", "dog"), 10, 4)


def test_test_comes_before_validation_and_what_is_unused_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    _images(tmp_path / "train")
    _images(tmp_path / "valid", count=2)
    _images(tmp_path / "Testing", count=3)
    _images(tmp_path / "unlabelled", ["all"])
    with caplog.at_level(logging.INFO, "recast.data"):
        assert _sizes(_load(tmp_path)) == (("cat", "dog"), 10, 6)
    assert "valid/" in caplog.text
    assert "unlabelled/" in caplog.text


def test_a_folder_too_high_is_said_to_be(tmp_path: Path) -> None:
    _images(tmp_path / "data")
    with pytest.raises(RecastError, match=r"data holds the class folders: give that folder"):
        _load(tmp_path)
    (tmp_path / "one" / "cat").mkdir(parents=True)
    _images(tmp_path / "one" / "cat", ["session1"])
    assert _load(tmp_path / "one").classes == ("cat",)


def test_a_class_may_be_called_train(tmp_path: Path) -> None:
    _images(tmp_path, ["bus", "car", "train"])
    assert _sizes(_load(tmp_path)) == (("bus", "car", "train"), 12, 3)


@pytest.mark.parametrize(
    ("folders", "remedy"),
    [
        (["train/cat", "Train/dog", "test/cat"], "are both train splits"),
        (["train/cat", "test/cat", "testing/cat"], "are both test splits"),
        (["test/cat", "test/dog"], "without a training split"),
        (["valid/cat", "cat", "dog"], "without a training split"),
        (["train", "test"], "not class folders"),
        (["train"], "not class folders"),
        (["train", "valid", "cat"], "not class folders"),
        (["pets/train/cat", "pets/train/dog", "pets/test/cat"], "would be one class"),
        (["images/Training/cat", "labels"], "would be one class"),
        (["train/cat", "test/Cat"], "use one spelling"),
    ],
)
def test_what_could_be_read_two_ways_is_refused(
    tmp_path: Path, folders: list[str], remedy: str
) -> None:
    for folder in folders:
        _images(tmp_path / folder, [""])
    with pytest.raises(RecastError, match=remedy) as error:
        _load(tmp_path)
    assert "\n" not in str(error.value)


def test_what_systems_leave_is_no_class_and_stops_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    _images(tmp_path)
    for left in ("__MACOSX/cat", ".ipynb_checkpoints", "@eaDir", "$RECYCLE.BIN", "lost+found"):
        _images(tmp_path / left, [""])
    for file in (
        "cat/._0.png",
        "cat/.DS_Store",
        "dog/Thumbs.db",
        "dog/desktop.ini",
        "cat/.x/1.png",
    ):
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).write_bytes(b"\0\5\x16\7")
    _images(tmp_path / "cat", ["__MACOSX", ".ipynb_checkpoints"])
    with caplog.at_level(logging.INFO, "recast.data"):
        assert _sizes(_load(tmp_path)) == (("cat", "dog"), 8, 2)
    assert "hidden or of the system" in caplog.text


def test_folders_without_images_are_no_classes_but_empty_ones_are(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    _images(tmp_path)
    (tmp_path / "emu").mkdir()
    for file in (
        "runs/1/registry.sqlite",
        "20260101/registry.sqlite",
        "labels/cat.txt",
        "notes.md",
    ):
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_text("x")
    _images(tmp_path, ["20260101"])  # a report's figures
    with caplog.at_level(logging.INFO, "recast.data"):
        assert _sizes(_load(tmp_path)) == (("cat", "dog", "emu"), 8, 2)
    assert "1 .txt files" in caplog.text
    assert "1 a run's folder" in caplog.text


def test_files_that_are_no_images_are_counted_once_and_not_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    _images(tmp_path)
    for index in range(3):
        (tmp_path / "cat" / f"{index}.json").write_text("{}")
    (tmp_path / "dog" / "clip.mp4").write_bytes(b"\0\0\0\x18ftypmp42")
    (tmp_path / "dog" / "photo.heic").write_bytes(b"\0\0\0\x18ftypheic")
    Image.new("RGB", (8, 8)).save(tmp_path / "loose.png")
    with caplog.at_level(logging.INFO, "recast.data"):
        _load(tmp_path)
        _load(tmp_path)
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == 1
    for part in (
        "8 training and 2 test images", "6 skipped", "3 .json", "1 .mp4", "1 .heic", "1 beside",
        "2 classes: cat, dog",
    ):  # fmt: skip
        assert part in lines[0]


def test_an_image_goes_by_its_bytes_where_its_name_says_nothing(tmp_path: Path) -> None:
    _images(tmp_path, count=6)
    (tmp_path / "cat" / "0.png").rename(tmp_path / "cat" / "photo")
    (tmp_path / "cat" / "1.png").rename(tmp_path / "cat" / "1.png.1")
    (tmp_path / "cat" / "2.png").rename(tmp_path / "cat" / "2.PNG")
    assert _sizes(_load(tmp_path))[1:] == (10, 2)


def test_links_are_followed_and_circles_are_not(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    _images(tmp_path / "store", ["cat", "dog", "more"])
    data = tmp_path / "data"
    data.mkdir()
    (data / "cat").symlink_to(tmp_path / "store" / "cat", target_is_directory=True)
    (data / "dog").mkdir()
    (data / "dog" / "linked").symlink_to(tmp_path / "store" / "dog", target_is_directory=True)
    (data / "dog" / "one.png").symlink_to(tmp_path / "store" / "more" / "0.png")
    (data / "dog" / "round").symlink_to(data / "dog", target_is_directory=True)
    (data / "dog" / "nowhere.png").symlink_to(tmp_path / "absent.png")
    with caplog.at_level(logging.INFO, "recast.data"):
        found = _load(data)
    assert len(found.x_train) + len(found.x_test) == 11
    assert "1 broken links" in caplog.text
    assert "1 links to a folder above" in caplog.text


def test_names_are_compared_as_they_read(tmp_path: Path) -> None:
    _images(tmp_path / "train", ["cafe\u0301", "tea"])
    _images(tmp_path / "test", ["caf\u00e9", "tea"])
    assert _load(tmp_path).classes == ("caf\u00e9", "tea")


def test_a_name_that_is_no_text_does_no_harm(tmp_path: Path) -> None:
    _images(tmp_path, ["tea"])
    try:
        os.mkdir(os.fsencode(tmp_path) + b"/caf\xe9")  # noqa: PTH102  # no str can name it
    except OSError:
        pytest.skip("this file system takes text only")
    assert _load(tmp_path).classes == ("caf\ufffd", "tea")


def test_letters_of_either_case_are_two_classes(tmp_path: Path) -> None:
    _images(tmp_path, ["A", "a"])
    if len(list(tmp_path.iterdir())) == 1:
        pytest.skip("this file system does not tell them apart")
    assert _load(tmp_path).classes == ("A", "a")


def test_a_data_folder_that_is_the_task_itself_and_data_twice_are_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    _images(tmp_path / "rose", ["rose", "tulip"])
    told, found = what_is_there(tmp_path / "rose", "flowers")
    assert told.endswith("(are its folders the classes? move them into flowers/)")
    assert found == "rose/, tulip/"
    _images(tmp_path / "flowers")
    pixels = np.zeros((4, 8, 8), np.uint8)
    np.savez(
        tmp_path / "flowers.npz", x_train=pixels, y_train=np.arange(4) % 2, x_test=pixels,
        y_test=np.arange(4) % 2, classes=np.array(["a", "b"]),
    )  # fmt: skip
    with caplog.at_level(logging.WARNING):
        data = folder_task_data(tmp_path, "flowers", 8)
    assert data is not None
    assert data.class_names == ("a", "b")
    assert "flowers.npz is read, and the folder flowers/ beside it is not" in caplog.text
