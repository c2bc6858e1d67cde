"""Groups stay whole: a writer, or a sign, belongs to one client, with its test images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from client.data import load_dataset, parse_task, partition, shares
from recast_core.errors import RecastError

GROUPS = 12
CLASSES = 3


@pytest.fixture
def grouped(tmp_path: Path) -> Path:
    """Every pixel of an image is its group; half the test groups occur in training."""
    rng = np.random.default_rng(0)
    group = np.repeat(np.arange(GROUPS), rng.integers(3, 9, GROUPS))
    test = np.repeat(np.arange(GROUPS // 2, GROUPS + GROUPS // 2), 3)
    path = tmp_path / "grouped.npz"
    np.savez(
        path,
        x_train=np.tile(group[:, None, None], (1, 4, 4)).astype(np.uint8),
        y_train=np.arange(len(group)) % CLASSES,
        x_test=np.tile(test[:, None, None], (1, 4, 4)).astype(np.uint8),
        y_test=np.arange(len(test)) % CLASSES,
        classes=np.array(["a", "b", "c"]),
        group_train=group,
        group_test=test,
    )
    return path


@pytest.mark.parametrize("task", ["", "@0-1"])
def test_a_group_belongs_to_one_client_with_its_test_images(grouped: Path, task: str) -> None:
    data = load_dataset(parse_task(f"npz:{grouped}{task}"), 4)
    mine = [partition(data, c, 5, scheme="natural", seed=1) for c in range(5)]
    owner = {g: c for c, part in enumerate(mine) for g in np.unique(part.x_train).tolist()}
    assert len(owner) == GROUPS == sum(len(np.unique(part.x_train)) for part in mine)
    assert sum(len(part.y_test) for part in mine) == len(data.y_test)
    for client, part in enumerate(mine):
        assert len(part.y_train)
        for group in np.unique(part.x_test).tolist():
            assert owner.get(group, client) == client


def test_the_seed_deals_groups_and_nothing_else_does(grouped: Path) -> None:
    data = load_dataset(parse_task(f"npz:{grouped}"), 4)
    again = load_dataset(parse_task(f"npz:{grouped}+inverted"), 4)
    first, same, other = (
        [part.tolist() for part in shares(d, 4, "natural", seed)[0]]
        for d, seed in ((data, 0), (again, 0), (data, 1))
    )
    assert first == same != other


def test_too_few_groups_say_how_many_clients_they_allow(grouped: Path) -> None:
    data = load_dataset(parse_task(f"npz:{grouped}"), 4)
    with pytest.raises(RecastError, match=f"at most {GROUPS} clients"):
        shares(data, GROUPS + 1, "natural", 0)
    with pytest.raises(RecastError, match="without groups"):
        shares(load_dataset(parse_task("digits"), 8), 2, "natural", 0)


@pytest.mark.parametrize(("name", "clients"), [("omniglot_5_alphabets", 5), ("gtsrb", 20)])
def test_shared_data_divide_by_drawer_and_by_sign(name: str, clients: int) -> None:
    path = Path(__file__).parents[3].parent / "shared" / "data" / f"{name}.npz"
    if not path.is_file():
        pytest.skip(f"no {path.name} beside the repository")
    data = load_dataset(parse_task(f"npz:{path}"), 32)
    train, _ = shares(data, clients, "natural", 0)
    assert data.groups_train is not None
    held = [set(data.groups_train[part].tolist()) for part in train]
    assert sum(map(len, held)) == len(set().union(*held))
