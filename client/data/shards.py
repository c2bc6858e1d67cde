"""Deal classes to clients, a few to each, and cut the classes among those that hold them."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from recast_core.errors import RecastError

Indices = npt.NDArray[np.int64]


def check_shards(labels: npt.NDArray[np.int64], clients: int, k: int) -> None:
    """Raise RecastError where K classes per client cannot be had, or do not cover all classes."""
    present = len(np.unique(labels))
    if k > present:
        raise RecastError(f"shards:{k} of {present} classes: use K up to {present}")
    if clients * k < present:
        raise RecastError(
            f"shards:{k} and {clients} clients cannot cover {present} classes: "
            f"use K of {math.ceil(present / clients)} or more, or more clients"
        )


def deal_shards(
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
