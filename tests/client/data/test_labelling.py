"""Few labels: which training images have one, and that nobody sees the others' labels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from client.data import folder_task_data, known_labels, load_dataset, parse_task, partition
from client.data.arrays import UNLABELLED, Dataset
from client.node import OwnData
from experiments.engines.folded.data import load_task
from experiments.measure.share import deal
from recast_core.errors import RecastError
from recast_core.settings import Settings

DIGITS = load_dataset(parse_task("digits"), 32)


def _skewed() -> Dataset:
    y = np.repeat(np.arange(4), [500, 40, 6, 1])
    return Dataset(
        np.zeros((len(y), 2, 2), np.uint8), y, np.zeros((4, 2, 2), np.uint8), np.arange(4),
        ("a", "b", "c", "d"),
    )  # fmt: skip


@pytest.mark.parametrize("budget", [4, 5, 64, 300, 546])
def test_budget_is_met_exactly_in_proportion_and_no_class_goes_without(budget: int) -> None:
    data = _skewed()
    known = known_labels(data, budget, 0)
    assert int((known != UNLABELLED).sum()) == budget
    assert np.array_equal(known[known != UNLABELLED], data.y_train[known != UNLABELLED])
    counts = np.bincount(known[known != UNLABELLED], minlength=4)
    assert counts.min() >= 1
    exact = np.bincount(data.y_train) * budget / len(data.y_train)
    assert np.abs(counts - exact).max() <= 4


def test_choice_is_repeated_and_follows_the_seed() -> None:
    one, again, other = (known_labels(DIGITS, 64, seed) for seed in (0, 0, 1))
    assert np.array_equal(one, again)
    assert not np.array_equal(one, other)


def test_all_labels_and_none() -> None:
    for budget in (-1, len(DIGITS.y_train), 10**6):
        assert known_labels(DIGITS, budget, 0) is DIGITS.y_train
    assert (known_labels(DIGITS, 0, 0) == UNLABELLED).all()


def test_fewer_labels_than_classes_are_refused_in_one_line() -> None:
    with pytest.raises(RecastError, match=r"^labels 9 for 10 classes: [^\n]*$"):
        known_labels(DIGITS, 9, 0)
    some = load_dataset(parse_task("digits@0-3"), 32)
    assert int((known_labels(some, 4, 0) >= 0).sum()) == 4


def test_every_client_has_the_labels_of_the_one_choice_and_the_images_of_no_budget() -> None:
    parts = [partition(DIGITS, c, 7, seed=3, labels=100) for c in range(7)]
    whole = [partition(DIGITS, c, 7, seed=3) for c in range(7)]
    assert sum(int(part.labelled.sum()) for part in parts) == 100
    for part, full in zip(parts, whole, strict=True):
        assert np.array_equal(part.x_train, full.x_train)
        assert np.array_equal(part.y_train[part.labelled], full.y_train[part.labelled])
        assert (part.y_train[~part.labelled] == UNLABELLED).all()
        assert np.array_equal(part.y_test, full.y_test)


def test_folded_rows_are_the_images_and_labels_of_a_client_alone() -> None:
    settings = Settings(labels=60, partition="dirichlet:0.3", seed=2)
    task = load_task("digits+fog:2", 32, 5, settings)
    dataset = load_dataset(parse_task("digits+fog:2"), 32)
    for number in range(5):
        rows = task.node(number)
        alone = OwnData(partition(dataset, number, 5, scheme="dirichlet:0.3", seed=2, labels=60))
        assert task.images[rows.learn].equal(alone.images)
        assert rows.labels.equal(alone.labels)
        assert task.images[rows.all_rows].equal(alone.all_images)
        assert rows.labelled.equal(alone.labelled)
        assert rows.local_classes == alone.local_classes
        assert len(rows.labels) == int(rows.labelled.sum()) < len(rows.all_rows)


def test_without_a_budget_all_images_are_labelled_and_none_is_copied() -> None:
    alone = OwnData(partition(DIGITS, 0, 3, seed=0))
    assert alone.images is alone.all_images
    assert bool(alone.labelled.all())
    rows = load_task("digits", 32, 3, Settings()).node(0)
    assert rows.learn is rows.all_rows


def test_a_real_client_labels_with_minus_one_or_a_folder(tmp_path: Path) -> None:
    x = np.arange(40 * 16, dtype=np.int64).astype(np.uint8).reshape(40, 4, 4)
    y = np.where(np.arange(40) < 30, UNLABELLED, np.arange(40) % 2)
    np.savez(tmp_path / "t.npz", x_train=x, y_train=y, classes=["a", "b"])
    data = folder_task_data(tmp_path, "t", 4)
    assert data is not None
    assert int((~data.labelled).sum()) == 30
    assert int(data.labelled.sum()) + len(data.y_test) == 10
    assert (data.y_test != UNLABELLED).all()

    for name, count in (("a", 10), ("b", 10), ("unlabelled", 6)):
        (tmp_path / "f" / name).mkdir(parents=True)
        for index in range(count):
            Image.fromarray(x[index]).save(tmp_path / "f" / name / f"{index}.png")
    data = folder_task_data(tmp_path, "f", 4, classes=["a", "b"])
    assert data is not None
    assert data.num_classes == 2
    assert int((~data.labelled).sum()) == 6
    assert (len(data.y_test), sorted(set(data.y_test.tolist()))) == (4, [0, 1])


def test_shares_written_for_real_clients_lack_the_same_labels(tmp_path: Path) -> None:
    settings = Settings(labels=50, tasks="d=digits", seed=1)
    for number, folder in enumerate(deal(settings, 3, tmp_path)):
        own = folder_task_data(folder, "d", 32)
        alone = partition(DIGITS, number, 3, seed=1, labels=50)
        assert own is not None
        assert np.array_equal(own.y_train, alone.y_train)
        assert np.array_equal(own.x_train, alone.x_train)


def test_a_data_set_that_a_task_names_may_not_lack_labels(tmp_path: Path) -> None:
    x, y = np.zeros((4, 2, 2), np.uint8), np.array([0, 1, -1, 0])
    path = tmp_path / "t.npz"
    np.savez(path, x_train=x, y_train=y, x_test=x, y_test=abs(y), classes=["a", "b"])
    with pytest.raises(RecastError, match="class ids -1 to 1"):
        load_dataset(parse_task(f"npz:{path}"), 2)


def test_settings_refuse_labels_that_no_head_could_use() -> None:
    for labels, said in ((-2, "-1 for all"), (0, "use head backbone")):
        with pytest.raises(RecastError, match=said):
            Settings(labels=labels, head="local")
