"""The layouts of CIFAR-10-C and ImageNet-C, on small files of the same form."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from client.data import load_dataset, parse_task
from client.data.arrays import Dataset
from client.data.corrupted import CIFAR10, CIFAR100, corruptions
from recast_core.errors import RecastError

PER_LEVEL = 50


@pytest.fixture(autouse=True)
def _fresh() -> None:
    load_dataset.cache_clear()


def _arrays(folder: Path, labels: int = 10) -> Path:
    """Pixels tell their image (red), their severity (green) and their corruption (blue)."""
    folder.mkdir()
    image = np.tile(np.arange(PER_LEVEL), 5)
    severity = np.repeat(np.arange(1, 6), PER_LEVEL)
    for code, name in enumerate(("fog", "shot_noise")):
        x = np.zeros((5 * PER_LEVEL, 32, 32, 3), np.uint8)
        x[..., 0], x[..., 1], x[..., 2] = image[:, None, None], severity[:, None, None], code
        np.save(folder / f"{name}.npy", x)
    np.save(folder / "labels.npy", np.tile(np.arange(PER_LEVEL) % labels, 5).astype(np.uint8))
    return folder


def _images(folder: Path) -> Path:
    for code, name in enumerate(("noise/gaussian_noise", "frost")):
        for severity in (1, 3):
            for label, cls in enumerate(("n01440764", "n01443537")):
                place = folder / name / str(severity) / cls
                place.mkdir(parents=True)
                for index in range(10):
                    pixel = (100 * label + index, severity, code)
                    Image.new("RGB", (8, 8), pixel).save(place / f"{index:02}.png")
    return folder


def _load(folder: Path, rest: str, seed: int = 0) -> Dataset:
    return load_dataset(parse_task(f"corrupted:{folder}{rest}"), 32, seed)


def test_arrays_of_a_severity_are_its_images_with_their_labels(tmp_path: Path) -> None:
    folder = _arrays(tmp_path / "CIFAR-10-C")
    for name, code in (("fog", 0), ("shot_noise", 1)):
        for severity in (1, 3, 5):
            data = _load(folder, f"+{name}:{severity}")
            x = np.concatenate([data.x_train, data.x_test])[:, 0, 0]
            y = np.concatenate([data.y_train, data.y_test])
            assert sorted(x[:, 0].tolist()) == list(range(PER_LEVEL))
            assert np.array_equal(x[:, 0] % 10, y)
            assert (x[:, 1] == severity).all()
            assert (x[:, 2] == code).all()
            assert len(data.y_test) == PER_LEVEL // 5
    assert _load(folder, "+fog").x_train[0, 0, 0, 1] == 3
    assert data.classes == CIFAR10


@pytest.mark.parametrize("make", [_arrays, _images])
def test_the_test_images_are_the_same_for_all_and_follow_the_seed(
    tmp_path: Path, make: object
) -> None:
    folder = make(tmp_path / "C")  # type: ignore[operator]
    names = corruptions(folder)
    tested = [
        _load(folder, f"+{name}:{level}").x_test[:, 0, 0, 0].tolist()
        for name in names
        for level in (1, 3)
    ]
    assert all(rows == tested[0] for rows in tested)
    assert _load(folder, f"+{names[0]}:1", seed=1).x_test[:, 0, 0, 0].tolist() != tested[0]


def test_folders_of_images_in_one_level_or_two(tmp_path: Path) -> None:
    folder = _images(tmp_path / "ImageNet-C")
    assert corruptions(folder) == ("frost", "gaussian_noise")
    for name, code in (("gaussian_noise", 0), ("frost", 1)):
        data = _load(folder, f"+{name}:3")
        assert data.classes == ("n01440764", "n01443537")
        assert (data.x_train[:, 0, 0, 1] == 3).all()
        assert (data.x_train[:, 0, 0, 2] == code).all()
        assert np.array_equal(data.x_train[:, 0, 0, 0] // 100, data.y_train)


def test_a_further_transform_and_a_class_range_follow_the_corruption(tmp_path: Path) -> None:
    folder = _arrays(tmp_path / "C")
    plain, turned = _load(folder, "@2-4+fog:2"), _load(folder, "@2-4+fog:2+inverted")
    assert np.array_equal(turned.x_train, 255 - plain.x_train)
    assert set(plain.y_train.tolist()) == {2, 3, 4}


def test_class_names_are_the_files_own_or_cifars_or_ids(tmp_path: Path) -> None:
    assert _load(_arrays(tmp_path / "cifar100c"), "+fog").classes == CIFAR100
    assert (len(CIFAR100), CIFAR100[0], CIFAR100[99]) == (100, "apple", "worm")
    folder = _arrays(tmp_path / "svhn-c", 3)
    assert _load(folder, "+fog").classes == ("0", "1", "2")
    load_dataset.cache_clear()
    (folder / "classes.txt").write_text("cat\ndog\nfrog\n")
    assert _load(folder, "+fog").classes == ("cat", "dog", "frog")


@pytest.mark.parametrize(
    ("make", "rest", "said"),
    [
        (_arrays, "+frost:2", "it has fog, shot_noise"),
        (_arrays, "+labels:2", "it has fog, shot_noise"),
        (_images, "+fog:2", "it has frost, gaussian_noise"),
        (_images, "+frost:2", "it has 1, 3"),
    ],
)
def test_what_is_missing_is_named_with_what_is_there(
    tmp_path: Path, make: object, rest: str, said: str
) -> None:
    folder = make(tmp_path / "C")  # type: ignore[operator]
    with pytest.raises(RecastError) as error:
        _load(folder, rest)
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_files_that_are_no_corruption_are_refused(tmp_path: Path) -> None:
    folder = _arrays(tmp_path / "C")
    np.save(folder / "odd.npy", np.zeros((7, 4, 4, 3), np.uint8))
    np.save(folder / "floats.npy", np.zeros((5 * PER_LEVEL, 4, 4, 3)))
    (folder / "torn.npy").write_bytes((folder / "fog.npy").read_bytes()[:1000])
    header = (folder / "odd.npy").read_bytes().replace(b"(7, 4, 4, 3)", b"(-7, 4, 4,3)")
    (folder / "less.npy").write_bytes(header)
    for name, said in (
        ("odd", "five severities"), ("floats", "store images as uint8"), ("torn", "cannot read"),
        ("less", "cannot read"),
    ):  # fmt: skip
        with pytest.raises(RecastError, match=said):
            _load(folder, f"+{name}:1")
    labels = np.load(folder / "labels.npy").astype(np.int64)
    (folder / "classes.txt").write_text("\n \n")
    with pytest.raises(RecastError, match=r"0 classes in .*classes\.txt"):
        _load(folder, "+fog:1")
    (folder / "classes.txt").unlink()
    np.save(folder / "labels.npy", np.where(labels == 1, 3_000_000_000, labels))
    with pytest.raises(RecastError, match=r"labels\.npy holds class id 3000000000: use 0 to"):
        _load(folder, "+fog:1")
    (folder / "labels.npy").unlink()
    for rest, said in (("+fog:1", "no labels.npy"), ("", "no corruption in")):
        with pytest.raises(RecastError, match=said):
            _load(folder, rest)
    (tmp_path / "empty").mkdir()
    for name in ("empty", "absent"):
        with pytest.raises(RecastError, match=r"neither NAME\.npy|no folder"):
            _load(tmp_path / name, "+fog")
