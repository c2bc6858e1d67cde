"""Deal a task's images to clients, evenly or skewed by label."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
import numpy.typing as npt

from client.data.arrays import ClientData, Dataset
from client.data.dirichlet import deal_dirichlet
from client.data.labelling import ALL, known_labels
from client.data.natural import deal_groups, own_groups
from client.data.quotas import proportional
from client.data.shards import check_shards, deal_shards
from recast_core.errors import RecastError

Indices = npt.NDArray[np.int64]
_SCHEMES = (
    "use iid, dirichlet:ALPHA (0.001 to 1e6), shards:K (K classes per client) or natural (by the "
    "groups that come with the data)"
)


@dataclass(frozen=True)
class Scheme:
    """A parsed scheme: `value` is alpha of a dirichlet, K of shards, else 0."""

    kind: Literal["iid", "dirichlet", "shards", "natural"]
    value: float = 0.0


def parse_scheme(text: str) -> Scheme:
    """Read ``iid``, ``dirichlet:ALPHA``, ``shards:K`` or ``natural``.

    Raises:
        RecastError: anything else, or a value out of range.
    """
    kind, _, value = text.strip().lower().partition(":")
    try:
        if kind == "iid" and not value:
            return Scheme("iid")
        if kind == "natural" and not value:
            return Scheme("natural")
        if kind == "dirichlet" and 1e-3 <= float(value) <= 1e6:
            return Scheme("dirichlet", float(value))
        if kind == "shards" and int(value) >= 1:
            return Scheme("shards", int(value))
    except ValueError:
        pass
    raise RecastError(f"unknown partition scheme {text!r}: {_SCHEMES}")


def partition(
    dataset: Dataset,
    partition_id: int,
    num_partitions: int,
    *,
    scheme: str = "dirichlet:0.5",
    seed: int,
    labels: int = ALL,
) -> ClientData:
    """Return one client's share of a task.

    The split is computed once per (dataset, num_partitions, scheme, seed) and process. Training
    labels alone decide it, or groups where the scheme is natural; see `shares`.

    Args:
        dataset: the task.
        partition_id: 0 .. num_partitions - 1.
        num_partitions: how many clients share the task; more than images: some get none.
        scheme: see `parse_scheme`.
        seed: of the split, and of which images have labels.
        labels: how many training images of all clients together have one; see `known_labels`.

    Raises:
        RecastError: no such client or scheme, or fewer labels than classes.
    """
    if not 0 <= partition_id < num_partitions:
        raise RecastError(
            f"client {partition_id} of {num_partitions}: use a positive number of clients and an "
            "id from 0 up to one less"
        )
    train, test = shares(dataset, num_partitions, scheme, seed)
    mine, held_out = train[partition_id], test[partition_id]
    return ClientData(
        dataset.x_train[mine],
        known_labels(dataset, labels, seed)[mine],
        dataset.x_test[held_out],
        dataset.y_test[held_out],
        len(dataset.classes),
        dataset.classes,
    )


def shares(
    dataset: Dataset, num_partitions: int, scheme: str, seed: int
) -> tuple[Sequence[Indices], Sequence[Indices]]:
    """Return every client's rows of the training and of the test images.

    Test images follow the training images' label mix (`split_test`). With the scheme natural those
    whose group occurs in training go to its client, and only the others follow the label mix.

    Raises:
        RecastError: as `split`; natural and no groups, or fewer of them than clients.
    """
    return _shares(dataset, num_partitions, parse_scheme(scheme), seed)


def forget_shares() -> None:
    """Drop what was kept of earlier calls: of a million clients that is a gigabyte."""
    _shares.cache_clear()
    _split.cache_clear()


def split(
    labels: npt.NDArray[np.int64], num_partitions: int, scheme: str, seed: int
) -> list[Indices]:
    """Deal range(N) to clients: disjoint, complete, the same for the same arguments.

    - iid: shuffled and cut into parts that differ by one at most.
    - dirichlet:ALPHA: for every class the clients' shares are one draw of Dirichlet(ALPHA)
      (arXiv 1905.12022), by flwr-datasets. At least 10 images per client if a few draws can give
      that, else 1, else any number.
    - shards:K: every client has images of at most K classes, every class as many clients as any
      other, give or take one. K times the clients must reach the number of classes.

    Args:
        labels: integers [N].
        num_partitions: number of clients; more than N: a seeded choice of them gets nothing.
        scheme: see `parse_scheme`.
        seed: of everything random here, at least 0.

    Returns:
        One int64 array of indices per client, in random order, read-only; some may be empty.

    Raises:
        RecastError: no clients, negative seed, bad scheme, or a K that the labels do not allow.
    """
    array = np.ascontiguousarray(labels, dtype=np.int64)
    return list(_split(array.tobytes(), num_partitions, parse_scheme(scheme), seed))


def split_test(
    train_labels: npt.NDArray[np.int64],
    train_parts: Sequence[Indices],
    test_labels: npt.NDArray[np.int64],
    seed: int,
) -> list[Indices]:
    """Deal the test images so that each client's label mix matches its training images'.

    Of each class the test images go to clients in proportion to how many training images of it
    they hold, rounded by largest remainder (ties at random): never a whole image from the exact
    proportion. A class without training images is dealt in proportion to all images held.

    Args:
        train_labels: integers [N].
        train_parts: what `split` made of them.
        test_labels: integers [M].
        seed: decides which images and who wins ties.

    Returns:
        One int64 array of indices in 0 .. M - 1 per client, ascending; together all of range(M)
        (nothing if there is no training image).
    """
    clients = len(train_parts)
    rng = np.random.default_rng((seed, 1))
    sizes = np.array([len(part) for part in train_parts], dtype=np.int64)
    dealt = np.concatenate(train_parts) if clients else np.empty(0, np.int64)
    client_of = np.repeat(np.arange(clients), sizes)
    label_of = train_labels[dealt]
    owner = np.full(len(test_labels), -1, dtype=np.int64)
    if len(dealt):
        for label in np.unique(test_labels):
            members = rng.permutation(np.flatnonzero(test_labels == label))
            held = np.bincount(client_of[label_of == label], minlength=clients)
            counts = proportional(len(members), held if held.any() else sizes, rng)
            owner[members] = np.repeat(np.arange(clients), counts)
    order = np.argsort(owner, kind="stable")
    cuts = np.searchsorted(owner[order], np.arange(clients + 1))
    return [order[cuts[c] : cuts[c + 1]] for c in range(clients)]


@lru_cache(maxsize=32)
def _shares(
    dataset: Dataset, num_partitions: int, scheme: Scheme, seed: int
) -> tuple[Sequence[Indices], Sequence[Indices]]:
    if scheme.kind != "natural":
        train = _split(dataset.y_train.tobytes(), num_partitions, scheme, seed)
        return train, split_test(dataset.y_train, train, dataset.y_test, seed)
    _check(num_partitions, seed)
    if dataset.groups_train is None:
        raise RecastError(
            "partition natural, and data without groups: store group_train and group_test in the "
            "npz file, or choose another partition"
        )
    dealt = deal_groups(dataset.groups_train, num_partitions, seed)
    owner = own_groups(dataset.groups_train, dealt, dataset.groups_test, len(dataset.y_test))
    strangers = np.flatnonzero(owner < 0)
    mixed = split_test(dataset.y_train, dealt, dataset.y_test[strangers], seed)
    test = [
        np.sort(np.concatenate([np.flatnonzero(owner == client), strangers[part]]))
        for client, part in enumerate(mixed)
    ]
    return dealt, test


@lru_cache(maxsize=32)
def _split(
    label_bytes: bytes, num_partitions: int, scheme: Scheme, seed: int
) -> tuple[Indices, ...]:
    _check(num_partitions, seed)
    if scheme.kind == "natural":
        raise RecastError("partition natural needs groups: labels alone do not say who has what")
    labels = np.frombuffer(label_bytes, dtype=np.int64)
    rng = np.random.default_rng((seed, 0))
    # Whoever cuts classes or the whole into runs then cuts at random, however the data is sorted.
    shuffled = rng.permutation(len(labels))
    # With fewer images than clients a random choice of clients gets the parts, the rest nothing.
    busy = min(num_partitions, len(labels))
    parts: list[Indices] = [np.empty(0, dtype=np.int64)] * num_partitions
    if scheme.kind == "shards":
        check_shards(labels, num_partitions, int(scheme.value))
        parts = deal_shards(labels, num_partitions, int(scheme.value), rng)
    elif busy:
        if scheme.kind == "iid":
            positions = np.array_split(np.arange(len(labels)), busy)
        else:
            positions = deal_dirichlet(labels[shuffled], busy, scheme.value, seed)
        chosen = range(busy)
        if busy < num_partitions:
            chosen = np.sort(rng.choice(num_partitions, busy, replace=False)).tolist()
        for client, where in zip(chosen, positions, strict=True):
            parts[client] = shuffled[where]
    for part in parts:
        part.flags.writeable = False
    return tuple(parts)


def _check(num_partitions: int, seed: int) -> None:
    if num_partitions < 1:
        raise RecastError(f"{num_partitions} clients: use at least 1")
    if seed < 0:
        raise RecastError(f"seed {seed}: use 0 or more")
