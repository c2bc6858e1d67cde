"""Deal a task's images to clients, evenly or skewed by label."""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from client.data.arrays import ClientData, Dataset
from recast_core.errors import RecastError

Indices = npt.NDArray[np.int64]
_MIN_SIZES = (10, 1)
_SCHEMES = "use iid, dirichlet:ALPHA (0.001 to 1e6) or shards:K (K classes per client)"


@dataclass(frozen=True)
class Scheme:
    """A parsed scheme: `value` is alpha of a dirichlet, K of shards, 0 for iid."""

    kind: Literal["iid", "dirichlet", "shards"]
    value: float = 0.0


def parse_scheme(text: str) -> Scheme:
    """Read ``iid``, ``dirichlet:ALPHA`` or ``shards:K``.

    Raises:
        RecastError: anything else, or a value out of range.
    """
    kind, _, value = text.strip().lower().partition(":")
    try:
        if kind == "iid" and not value:
            return Scheme("iid")
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
) -> ClientData:
    """Return one client's share of a task.

    The split is computed once per (dataset, num_partitions, scheme, seed) and process. Training
    labels alone decide it; test images follow the training images' label mix (`split_test`).

    Args:
        dataset: the task.
        partition_id: 0 .. num_partitions - 1.
        num_partitions: how many clients share the task; more than images: some get none.
        scheme: see `parse_scheme`.
        seed: of the split.

    Raises:
        RecastError: no such client or scheme.
    """
    if not 0 <= partition_id < num_partitions:
        raise RecastError(
            f"client {partition_id} of {num_partitions}: use a positive number of clients and an "
            "id from 0 up to one less"
        )
    train, test = _shares(dataset, num_partitions, parse_scheme(scheme), seed)
    mine, held_out = train[partition_id], test[partition_id]
    return ClientData(
        dataset.x_train[mine],
        dataset.y_train[mine],
        dataset.x_test[held_out],
        dataset.y_test[held_out],
        len(dataset.classes),
    )


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
            counts = _proportional(len(members), held if held.any() else sizes, rng)
            owner[members] = np.repeat(np.arange(clients), counts)
    order = np.argsort(owner, kind="stable")
    cuts = np.searchsorted(owner[order], np.arange(clients + 1))
    return [order[cuts[c] : cuts[c + 1]] for c in range(clients)]


@lru_cache(maxsize=32)
def _shares(
    dataset: Dataset, num_partitions: int, scheme: Scheme, seed: int
) -> tuple[Sequence[Indices], Sequence[Indices]]:
    train = _split(dataset.y_train.tobytes(), num_partitions, scheme, seed)
    return train, split_test(dataset.y_train, train, dataset.y_test, seed)


@lru_cache(maxsize=32)
def _split(
    label_bytes: bytes, num_partitions: int, scheme: Scheme, seed: int
) -> tuple[Indices, ...]:
    if num_partitions < 1:
        raise RecastError(f"{num_partitions} clients: use at least 1")
    if seed < 0:
        raise RecastError(f"seed {seed}: use 0 or more")
    labels = np.frombuffer(label_bytes, dtype=np.int64)
    rng = np.random.default_rng((seed, 0))
    # Whoever cuts classes or the whole into runs then cuts at random, however the data is sorted.
    shuffled = rng.permutation(len(labels))
    # With fewer images than clients a random choice of clients gets the parts, the rest nothing.
    busy = min(num_partitions, len(labels))
    parts: list[Indices] = [np.empty(0, dtype=np.int64)] * num_partitions
    if scheme.kind == "shards":
        _check_shards(labels, num_partitions, int(scheme.value))
        parts = _shards(labels, num_partitions, int(scheme.value), rng)
    elif busy:
        if scheme.kind == "iid":
            positions = np.array_split(np.arange(len(labels)), busy)
        else:
            positions = _dirichlet(labels[shuffled], busy, scheme.value, seed)
        chosen = range(busy)
        if busy < num_partitions:
            chosen = np.sort(rng.choice(num_partitions, busy, replace=False)).tolist()
        for client, where in zip(chosen, positions, strict=True):
            parts[client] = shuffled[where]
    for part in parts:
        part.flags.writeable = False
    return tuple(parts)


def _dirichlet(
    labels: npt.NDArray[np.int64], clients: int, alpha: float, seed: int
) -> list[Indices]:
    """Split by flwr-datasets' DirichletPartitioner, each client as full as can be had."""
    # Read when Hugging Face's `datasets` is imported: nothing here needs the network.
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ.setdefault("HF_DATASETS_OFFLINE", "1")
    os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
    from datasets import Dataset as Table
    from flwr_datasets.partitioner import DirichletPartitioner

    table = Table.from_dict({"label": labels, "index": np.arange(len(labels))})
    for minimum in (*_MIN_SIZES, 0):
        if minimum and not _reachable(labels, clients, alpha, minimum, seed):
            continue
        partitioner = DirichletPartitioner(
            num_partitions=clients,
            partition_by="label",
            alpha=alpha,
            min_partition_size=minimum,
            self_balancing=False,
            seed=seed,
        )
        partitioner.dataset = table
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                partitioner.load_partition(0)
        except ValueError:  # eleven draws without the minimum
            continue
        return _all_partitions(partitioner, clients)
    raise AssertionError("a minimum of 0 is always met")


def _all_partitions(partitioner: Any, clients: int) -> list[Indices]:
    """Read the row numbers of all partitions.

    `load_partition` builds a table each time (2 ms: 20 s for 10,000 clients), so take the mapping
    behind it while there is one.
    """
    mapping = getattr(partitioner, "_partition_id_to_indices", None)
    if isinstance(mapping, dict) and len(mapping) == clients:
        return [np.asarray(mapping[client], dtype=np.int64) for client in range(clients)]
    return [
        np.asarray(partitioner.load_partition(client)["index"], dtype=np.int64)
        for client in range(clients)
    ]


def _reachable(
    labels: npt.NDArray[np.int64], clients: int, alpha: float, minimum: int, seed: int
) -> bool:
    """Say whether one of a few draws gives the poorest client `minimum` images.

    The same arithmetic as the partitioner's, vectorised: it would draw eleven times before it
    gives up, which takes a minute for 10,000 clients.
    """
    if len(labels) < minimum * clients:
        return False
    rng = np.random.default_rng((seed, 2))
    counts = np.unique(labels, return_counts=True)[1][:, None]
    for _ in range(5):
        shares = rng.dirichlet(np.full(clients, alpha), size=len(counts))
        ends = (np.cumsum(shares, axis=1) * counts).astype(np.int64)
        ends[:, -1:] = counts
        if np.diff(ends, axis=1, prepend=0).sum(axis=0).min() >= minimum:
            return True
    return False


def _check_shards(labels: npt.NDArray[np.int64], clients: int, k: int) -> None:
    present = len(np.unique(labels))
    if k > present:
        raise RecastError(f"shards:{k} of {present} classes: use K up to {present}")
    if clients * k < present:
        raise RecastError(
            f"shards:{k} and {clients} clients cannot cover {present} classes: "
            f"use K of {math.ceil(present / clients)} or more, or more clients"
        )


def _shards(
    labels: npt.NDArray[np.int64], clients: int, k: int, rng: np.random.Generator
) -> list[Indices]:
    """Deal K classes to every client from shuffled decks of all classes, then cut the classes.

    Not flwr-datasets' PathologicalPartitioner: that one leaves classes out when it draws none of
    their clients, and refuses a class with fewer images than clients.
    """
    classes = np.unique(labels)
    holders: dict[int, list[int]] = {int(label): [] for label in classes}
    deck = np.empty(0, dtype=np.int64)
    for client in range(clients):
        if len(deck) < k:
            fresh = rng.permutation(classes)
            held = np.isin(fresh, deck)
            deck = np.concatenate([deck, fresh[~held], fresh[held]])
        for label in deck[:k].tolist():
            holders[label].append(client)
        deck = deck[k:]
    hands: list[list[Indices]] = [[np.empty(0, dtype=np.int64)] for _ in range(clients)]
    for label, owners in holders.items():
        members = rng.permutation(np.flatnonzero(labels == label))
        order = rng.permutation(owners)
        for client, cut in zip(order.tolist(), np.array_split(members, len(order)), strict=True):
            hands[client].append(cut)
    return [rng.permutation(np.concatenate(hand)) for hand in hands]


def _proportional(total: int, weights: Indices, rng: np.random.Generator) -> Indices:
    """Divide `total` in proportion to integer `weights` by largest remainder, in exact integers."""
    whole, remainder = np.divmod(weights * total, weights.sum())
    left = total - int(whole.sum())
    first = np.lexsort((rng.random(len(weights)), -remainder))[:left]
    whole[first] += 1
    return whole
