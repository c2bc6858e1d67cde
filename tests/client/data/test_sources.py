"""Digits, npz files, folders and torchvision sets."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from client.data import folder_task_data, known_classes, load_dataset, parse_task
from recast_core.errors import RecastError

_SHARED = Path(__file__).parents[4] / "shared" / "data"


@pytest.fixture(autouse=True)
def _fresh_cache() -> None:
    load_dataset.cache_clear()


def _arrays(**changes: Any) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    arrays: dict[str, Any] = {
        "x_train": rng.integers(0, 256, (12, 6, 6, 3), dtype=np.uint8),
        "y_train": np.arange(12, dtype=np.int16) % 3,
        "x_test": rng.integers(0, 256, (6, 6, 6, 3), dtype=np.uint8),
        "y_test": np.arange(6, dtype=np.int16) % 3,
        "classes": np.array(["a", "b", "c"]),
    }
    arrays.update(changes)
    return {key: value for key, value in arrays.items() if value is not None}


def _write_images(root: Path, counts: dict[str, int], sizes: list[tuple[int, int]]) -> None:
    for name, count in counts.items():
        (root / name).mkdir(parents=True)
        for i in range(count):
            pixels = np.full((*sizes[i % len(sizes)], 3), 10 * i, np.uint8)
            Image.fromarray(pixels).save(root / name / f"{i}.png")


def test_digits_are_scaled_to_bytes_split_three_to_one_whatever_the_seed() -> None:
    data = load_dataset(parse_task("digits"), 32)
    assert data.x_train.shape[1:] == (8, 8)
    assert (data.x_train.min(), data.x_train.max()) == (0, 255)
    assert len(data.y_train) + len(data.y_test) == 1797
    assert abs(len(data.y_test) / 1797 - 0.25) < 0.005
    assert load_dataset(parse_task("digits"), 32) is data
    assert np.array_equal(load_dataset(parse_task("digits"), 32, 7).x_test, data.x_test)


def test_class_range_keeps_global_ids_and_each_images_noise() -> None:
    whole = load_dataset(parse_task("digits+noisy"), 32)
    some = load_dataset(parse_task("digits@3-5+noisy"), 32)
    assert set(some.y_train) == set(some.y_test) == {3, 4, 5}
    assert len(some.classes) == 10
    assert np.array_equal(some.x_train, whole.x_train[np.isin(whole.y_train, [3, 4, 5])])
    with pytest.raises(RecastError, match="@0-9"):
        load_dataset(parse_task("digits@3-10"), 32)


def test_npz_arrays_come_as_they_are(tmp_path: Path) -> None:
    arrays = _arrays()
    np.savez(tmp_path / "t.npz", **arrays)
    data = load_dataset(parse_task(f"npz:{tmp_path / 't.npz'}"), 4)
    assert np.array_equal(data.x_train, arrays["x_train"])
    assert np.array_equal(data.y_test, arrays["y_test"])
    assert data.y_train.dtype == np.int64
    assert data.classes == ("a", "b", "c")


def test_npz_with_a_test_flag_is_split_by_it(tmp_path: Path) -> None:
    x = np.arange(6, dtype=np.uint8)[:, None, None] * np.ones((1, 4, 4), np.uint8)
    flag = np.array([0, 1, 0, 0, 1, 0], bool)
    np.savez(tmp_path / "t.npz", x=x, y=np.arange(6), is_test=flag, classes=list("abcdef"))
    data = load_dataset(parse_task(f"npz:{tmp_path / 't.npz'}"), 4)
    assert data.x_test[:, 0, 0].tolist() == data.y_test.tolist() == [1, 4]


@pytest.mark.parametrize(
    ("changes", "remedy"),
    [
        ({"x_test": None}, "lacks x_test"),
        ({"classes": None}, "lacks classes"),
        ({"y_train": np.zeros(11, int)}, "y_train"),
        ({"y_train": np.full(12, np.nan)}, "NaN"),
        ({"y_test": np.full(6, -1)}, "0 to 2"),
        ({"y_test": np.full(6, 3)}, "0 to 2"),
        ({"x_train": np.zeros((12, 6, 6, 3))}, "uint8"),
        ({"x_train": np.zeros((12, 6), np.uint8)}, "shape"),
        ({"x_train": np.zeros((12, 3, 6, 6), np.uint8)}, "shape"),
        ({"x_test": np.zeros((6, 5, 5, 3), np.uint8)}, "one size"),
        ({"x_train": np.zeros((0, 6, 6, 3), np.uint8), "y_train": np.zeros(0, int)}, "empty"),
        ({"x_test": np.zeros((0, 6, 6, 3), np.uint8), "y_test": np.zeros(0, int)}, "no test"),
        ({"classes": np.array(["a", None, 3], dtype=object)}, "object"),
        ({"classes": np.array("a")}, "classes"),
        ({"classes": np.array([], dtype=str)}, "no list of names"),
        ({"y_train": np.array(0)}, "y_train"),
    ],
)
def test_misshapen_npz_is_refused_in_one_line(
    tmp_path: Path, changes: dict[str, Any], remedy: str
) -> None:
    np.savez(tmp_path / "t.npz", **_arrays(**changes))
    with pytest.raises(RecastError) as error:
        load_dataset(parse_task(f"npz:{tmp_path / 't.npz'}"), 32)
    assert remedy.lower() in str(error.value).lower()
    assert "\n" not in str(error.value)


def _medmnist(path: Path, **changed: Any) -> None:
    rng = np.random.default_rng(0)
    arrays: dict[str, Any] = {}
    for part, count in (("train", 12), ("val", 3), ("test", 6)):
        arrays[f"{part}_images"] = rng.integers(0, 256, (count, 6, 6, 3), dtype=np.uint8)
        arrays[f"{part}_labels"] = (np.arange(count, dtype=np.uint8) % 3)[:, None]
    np.savez(path, **(arrays | changed))


def test_medmnists_files_are_read_with_ids_for_names(tmp_path: Path) -> None:
    _medmnist(tmp_path / "m.npz")
    data = load_dataset(parse_task(f"npz:{tmp_path / 'm.npz'}"), 4)
    assert (len(data.x_train), len(data.x_test), data.classes) == (12, 6, ("0", "1", "2"))
    assert data.y_train.tolist() == [0, 1, 2] * 4
    assert known_classes(f"npz:{tmp_path / 'm.npz'}") == ("0", "1", "2")
    share = folder_task_data(tmp_path, "m", 4)
    assert share is not None
    assert share.class_names == ("0", "1", "2")
    _medmnist(tmp_path / "many.npz", train_labels=np.zeros((12, 14), np.uint8))
    with pytest.raises(RecastError, match=r"no class ids, one per image.*\[12, 14\]"):
        load_dataset(parse_task(f"npz:{tmp_path / 'many.npz'}"), 4)
    _medmnist(tmp_path / "hash.npz", train_labels=np.full((12, 1), 3_000_000_000))
    with pytest.raises(RecastError, match="class id 3000000000: use 0 to 65534"):
        load_dataset(parse_task(f"npz:{tmp_path / 'hash.npz'}"), 4)


@pytest.mark.parametrize(
    ("keys", "named"),
    [
        (["x_train", "y_train", "x_test", "y_test"], "lacks classes"),  # as Keras stores MNIST
        (["images", "labels"], "images, labels"),
        (["X", "y"], "X, y"),
        (["arr_0", "arr_1"], "arr_0, arr_1"),
        ([], "no arrays"),
    ],
)
def test_a_file_of_other_keys_is_told_which_it_has(
    tmp_path: Path, keys: list[str], named: str
) -> None:
    np.savez(tmp_path / "t.npz", **{key: np.zeros((2, 4, 4), np.uint8) for key in keys})
    with pytest.raises(RecastError) as error:
        load_dataset(parse_task(f"npz:{tmp_path / 't.npz'}"), 4)
    assert named in str(error.value)
    assert all(key in str(error.value) for key in keys)


def test_labels_of_one_column_are_labels(tmp_path: Path) -> None:
    np.savez(tmp_path / "t.npz", **_arrays(y_train=np.arange(12)[:, None] % 3))
    data = load_dataset(parse_task(f"npz:{tmp_path / 't.npz'}"), 4)
    assert data.y_train.tolist() == [0, 1, 2] * 4


def test_absent_truncated_or_foreign_file_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "whole.npz", **_arrays())
    content = (tmp_path / "whole.npz").read_bytes()
    (tmp_path / "cut.npz").write_bytes(content[: len(content) // 2])
    (tmp_path / "empty.npz").touch()
    (tmp_path / "text.npz").write_text("not an archive")
    with (tmp_path / "array.npz").open("wb") as file:
        np.save(file, np.zeros(3))
    for name in ("cut", "empty", "text", "array", "absent"):
        with pytest.raises(RecastError):
            load_dataset(parse_task(f"npz:{tmp_path / name}.npz"), 32)
    with pytest.raises(RecastError, match="it is no archive of arrays"):
        load_dataset(parse_task(f"npz:{tmp_path}/text.npz"), 32)
    with pytest.raises(RecastError, match=f"is a folder: write folder:{tmp_path}"):
        load_dataset(parse_task(f"npz:{tmp_path}"), 32)


def test_folder_of_mixed_sizes_becomes_one_size_and_a_fifth_is_test(tmp_path: Path) -> None:
    _write_images(tmp_path, {"cat": 10, "ant": 5}, [(20, 30), (12, 9), (40, 40)])
    data = load_dataset(parse_task(f"x=folder:{tmp_path}"), 16)
    assert data.classes == ("ant", "cat")
    assert data.x_train.shape == (12, 16, 16, 3)
    assert np.bincount(data.y_test).tolist() == [1, 2]


def test_small_images_of_one_size_stay_as_they_are_and_grey_stays_grey(tmp_path: Path) -> None:
    for i, name in enumerate("abab"):
        folder = tmp_path / ("train" if i < 2 else "test") / name
        folder.mkdir(parents=True)
        Image.fromarray(np.full((7, 9), 50 + i, np.uint8)).save(folder / "i.png")
    data = load_dataset(parse_task(f"x=folder:{tmp_path}"), 16)
    assert data.x_train.shape == data.x_test.shape == (2, 7, 9)
    assert data.x_test[:, 0, 0].tolist() == [52, 53]


def test_unusable_folders_are_refused(tmp_path: Path) -> None:
    (tmp_path / "bad" / "cat").mkdir(parents=True)
    (tmp_path / "bad" / "cat" / "i.png").write_text("no image")
    (tmp_path / "bare" / "cat").mkdir(parents=True)
    (tmp_path / "flat").mkdir()
    for name in ("bad", "bare", "flat", "absent"):
        with pytest.raises(RecastError):
            load_dataset(parse_task(f"x=folder:{tmp_path / name}"), 16)


def test_clients_class_folders_take_the_servers_ids(tmp_path: Path) -> None:
    _write_images(tmp_path / "pets", {"cat": 5, "dog": 5}, [(8, 8)])
    share = folder_task_data(tmp_path, "pets", 16, classes=["dog", "emu", "cat"])
    assert share is not None
    assert share.num_classes == 3
    assert set(share.y_train) == {0, 2}
    assert folder_task_data(tmp_path, "cars", 16) is None
    with pytest.raises(RecastError, match="dog"):
        folder_task_data(tmp_path, "pets", 16, classes=["cat", "emu"])
    with pytest.raises(RecastError, match="bad task name"):
        folder_task_data(tmp_path, "../pets", 16)


def test_clients_npz_labels_are_global_and_its_classes_must_agree(tmp_path: Path) -> None:
    np.savez(tmp_path / "t.npz", **_arrays(x_test=None, y_test=None, classes=None))
    share = folder_task_data(tmp_path, "t", 16, classes=["a", "b", "c", "d"])
    assert share is not None
    assert (share.num_classes, len(share.y_train), len(share.y_test)) == (4, 9, 3)
    with pytest.raises(RecastError, match="classes"):
        folder_task_data(tmp_path, "t", 16)
    np.savez(tmp_path / "t.npz", **_arrays())
    with pytest.raises(RecastError, match="differ"):
        folder_task_data(tmp_path, "t", 16, classes=["b", "a", "c"])


def _write_idx(path: Path, array: np.ndarray) -> None:
    header = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape)
    path.write_bytes(header + array.tobytes())
    with gzip.open(f"{path}.gz", "wb") as file:
        file.write(header + array.tobytes())


def test_torchvision_set_with_a_train_flag_loads_from_its_own_files(tmp_path: Path) -> None:
    raw = tmp_path / "FashionMNIST" / "raw"
    raw.mkdir(parents=True)
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 256, (30, 28, 28), dtype=np.uint8), np.arange(30, dtype=np.uint8) % 10
    for part, keep in (("train", slice(0, 20)), ("t10k", slice(20, 30))):
        _write_idx(raw / f"{part}-images-idx3-ubyte", x[keep])
        _write_idx(raw / f"{part}-labels-idx1-ubyte", y[keep])
    data = load_dataset(parse_task("fashionmnist"), 32, 0, tmp_path)
    assert np.array_equal(data.x_train, x[:20])
    assert np.array_equal(data.y_test, y[20:])
    assert data.classes[0] == "T-shirt/top"


class _Stand:
    """Stands for a set with `split=` (or none) that varies in size."""

    classes = (("tench", "fish"), ("dog",))

    def __init__(self, root: str, split: str = "all", download: bool = False) -> None:
        assert download
        self.length = {"train": 10, "val": 4, "test": 6, "all": 20}[split]

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        return Image.new("RGB", (20 + index, 25)), index % 2


@pytest.mark.parametrize(
    ("name", "train", "test"), [("Flowers102", 14, 6), ("Imagenette", 10, 4), ("EuroSAT", 16, 4)]
)
def test_torchvision_sets_of_every_kind_of_split_load(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str, train: int, test: int
) -> None:
    monkeypatch.setattr(f"torchvision.datasets.{name}", _Stand)
    data = load_dataset(parse_task(name), 16, 0, tmp_path)
    assert data.x_train.shape == (train, 16, 16, 3)
    assert data.x_test.shape == (test, 16, 16, 3)
    assert data.classes == ("tench", "dog")


def test_unreachable_set_names_the_remedies(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def unreachable(*_args: Any, **_kwargs: Any) -> None:
        raise RuntimeError("Error downloading\nno route to host")

    monkeypatch.setattr("torchvision.datasets.CIFAR10", unreachable)
    monkeypatch.setenv("RECAST_DATA", str(tmp_path))
    with pytest.raises(RecastError, match=r"npz:.*folder:") as error:
        load_dataset(parse_task("cifar10"), 32)
    assert str(tmp_path) in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.skipif(not _SHARED.is_dir(), reason=f"no research data in {_SHARED}")
def test_research_data_load() -> None:
    data = load_dataset(parse_task(f"npz:{_SHARED / 'omniglot_5_alphabets.npz'}"), 32)
    assert len(data.y_train) + len(data.y_test) == 2720


def test_parts_of_the_training_images_are_disjoint_whole_and_fixed() -> None:
    whole = load_dataset(parse_task("digits+gauss"), 32)
    first, last = (load_dataset(parse_task(f"digits{p}+gauss"), 32) for p in ("[:40%]", "[40%:]"))
    assert len(first.y_train) == len(whole.y_train) * 40 // 100
    assert len(first.y_train) + len(last.y_train) == len(whole.y_train)
    rows = np.concatenate([first.x_train, last.x_train]).reshape(len(whole.y_train), -1)
    mine, all_ = (sorted(map(bytes, part)) for part in (rows, whole.x_train.reshape(len(rows), -1)))
    assert mine == all_  # the same images with the same noise
    for part in (first, last):
        assert np.array_equal(part.x_test, whole.x_test)
        assert set(part.y_train.tolist()) == set(range(10))
    again = load_dataset(parse_task("digits[:40%]+gauss"), 32, 0)
    assert np.array_equal(again.x_train, first.x_train)
    some = load_dataset(parse_task("digits[:40%]@3-4+gauss"), 32)
    assert np.array_equal(some.x_train, first.x_train[np.isin(first.y_train, [3, 4])])


def test_a_part_without_images_is_refused(tmp_path: Path) -> None:
    x, y = np.zeros((10, 4, 4), np.uint8), np.zeros(10, np.int64)
    np.savez(tmp_path / "t.npz", x_train=x, y_train=y, x_test=x, y_test=y, classes=["a"])
    with pytest.raises(RecastError, match="larger part"):
        load_dataset(parse_task(f"npz:{tmp_path / 't.npz'}[:5%]"), 4)


def test_a_shift_of_colours_of_grey_images_is_refused() -> None:
    with pytest.raises(RecastError, match="changes nothing in grey images"):
        load_dataset(parse_task("digits+colour"), 32)
