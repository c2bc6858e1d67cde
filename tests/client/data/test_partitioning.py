"""Every scheme deals every image once, and test images follow the training mix."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from client.data import Dataset, partition, split, split_test
from client.data.dirichlet import all_partitions
from client.data.partitioning import _split
from recast_core.errors import RecastError
from tests.examples import examples

_SCHEMES = ["iid", "dirichlet:0.1", "dirichlet:5", "shards:2"]


def _labels(n: int, classes: int, seed: int) -> np.ndarray:
    """Return n labels in which every class occurs (n >= classes)."""
    rng = np.random.default_rng(seed)
    return rng.permutation(np.r_[np.arange(classes), rng.integers(0, classes, n - classes)])


@given(
    scheme=st.sampled_from(_SCHEMES),
    n=st.integers(6, 200),
    clients=st.integers(3, 250),
    seed=st.integers(0, 2**32),
)
def test_split_is_disjoint_complete_and_repeatable(
    scheme: str, n: int, clients: int, seed: int
) -> None:
    labels = _labels(n, 6, seed)
    parts = split(labels, clients, scheme, seed)
    assert len(parts) == clients
    assert sorted(np.concatenate(parts).tolist()) == list(range(n))
    _split.cache_clear()
    again = split(labels, clients, scheme, seed)
    assert all(np.array_equal(a, b) for a, b in zip(parts, again, strict=True))


@given(
    n=st.integers(1, 150),
    m=st.integers(0, 80),
    clients=st.integers(1, 40),
    seed=st.integers(0, 1000),
)
def test_test_images_follow_the_training_mix_to_within_one(
    n: int, m: int, clients: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    y_train, y_test = rng.integers(0, 4, n), rng.integers(0, 5, m)
    parts = [np.flatnonzero(o) for o in np.eye(clients, dtype=bool)[rng.integers(0, clients, n)].T]
    dealt = split_test(y_train, parts, y_test, seed)
    assert sorted(np.concatenate(dealt).tolist()) == list(range(m))
    for label in np.unique(y_test):
        held = np.array([np.sum(y_train[p] == label) for p in parts])
        if not held.any():
            held = np.array([len(p) for p in parts])
        got = np.array([np.sum(y_test[p] == label) for p in dealt])
        exact = held / held.sum() * np.sum(y_test == label)
        assert np.all(np.abs(got - exact) < 1 + 1e-9)
        assert not got[held == 0].any()


@pytest.mark.parametrize("scheme", _SCHEMES)
def test_other_seeds_give_other_splits(scheme: str) -> None:
    labels = _labels(200, 6, 0)
    one, two = split(labels, 8, scheme, 0), split(labels, 8, scheme, 1)
    assert any(not np.array_equal(a, b) for a, b in zip(one, two, strict=True))


@examples(40)
@given(
    k=st.integers(1, 7), clients=st.integers(7, 60), n=st.integers(7, 200), seed=st.integers(0, 99)
)
def test_shards_give_no_client_more_than_k_classes(k: int, clients: int, n: int, seed: int) -> None:
    labels = _labels(n, 7, seed)
    assert all(len(np.unique(labels[p])) <= k for p in split(labels, clients, f"shards:{k}", seed))


def test_smaller_alpha_skews_labels_more() -> None:
    labels = _labels(4000, 10, 0)

    def largest_share(scheme: str) -> float:
        return float(
            np.mean([np.bincount(labels[p]).max() / len(p) for p in split(labels, 10, scheme, 0)])
        )

    assert largest_share("dirichlet:0.3") > largest_share("dirichlet:100") + 0.2
    assert largest_share("dirichlet:100") < 0.2


def test_dirichlet_leaves_no_client_poor_where_the_images_suffice() -> None:
    assert min(map(len, split(_labels(1347, 10, 0), 20, "dirichlet:0.5", 3))) >= 10


def test_reading_the_mapping_equals_the_partitioners_public_answer() -> None:
    from datasets import Dataset as Table
    from flwr_datasets.partitioner import DirichletPartitioner

    labels = _labels(100, 4, 0)
    partitioner = DirichletPartitioner(5, "label", 0.5, 0, False, seed=1)
    partitioner.dataset = Table.from_dict({"label": labels, "index": np.arange(100)})
    public = [partitioner.load_partition(client)["index"] for client in range(5)]
    assert [part.tolist() for part in all_partitions(partitioner, 5)] == public


def test_ten_thousand_clients_of_fewer_images_get_each_image_once() -> None:
    parts = split(_labels(1347, 10, 0), 10_000, "dirichlet:0.5", 0)
    assert sum(map(len, parts)) == len(np.unique(np.concatenate(parts))) == 1347


@pytest.mark.parametrize(
    ("clients", "scheme"),
    [(0, "iid"), (-1, "dirichlet:0.5"), (4, "shards:7"), (2, "shards:1"), (4, "dirichlet:0"),
     (4, "dirichlet:nan"), (4, "dirichlet:-1"), (4, "dirichlet"), (4, "shards:0"),
     (4, "shards:1.5"), (4, "iid:3"), (4, "even")],
)  # fmt: skip
def test_impossible_splits_are_refused(clients: int, scheme: str) -> None:
    with pytest.raises(RecastError):
        split(_labels(60, 6, 0), clients, scheme, 0)


def _dataset(x_test_value: int = 0) -> Dataset:
    y_train, y_test = _labels(90, 3, 0), _labels(30, 3, 1)
    x_train = np.arange(90, dtype=np.uint8)[:, None, None] * np.ones((1, 2, 2), np.uint8)
    x_test = np.full((30, 2, 2), x_test_value, np.uint8)
    return Dataset(x_train, y_train, x_test, y_test, ("a", "b", "c", "never"))


def test_a_share_pairs_images_with_their_labels_and_counts_all_classes() -> None:
    data = _dataset()
    shares = [partition(data, client, 4, seed=0) for client in range(4)]
    assert sum(len(share.y_test) for share in shares) == 30
    for share in shares:
        assert share.num_classes == 4
        assert np.array_equal(data.y_train[share.x_train[:, 0, 0]], share.y_train)


def test_test_data_do_not_influence_the_training_share() -> None:
    one, two = _dataset(0), _dataset(9)
    two = Dataset(two.x_train, two.y_train, two.x_test[:5], 2 - two.y_test[:5], two.classes)
    for client in range(4):
        a, b = (partition(d, client, 4, seed=0).x_train for d in (one, two))
        assert np.array_equal(a, b)


@pytest.mark.parametrize(("client", "clients"), [(4, 4), (-1, 4), (0, 0), (0, -2)])
def test_a_client_that_does_not_exist_is_refused(client: int, clients: int) -> None:
    with pytest.raises(RecastError):
        partition(_dataset(), client, clients, seed=0)
