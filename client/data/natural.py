"""Deal groups of images that belong together: a writer's drawings, the photos of one sign."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from client.data.arrays import Groups
from recast_core.errors import RecastError

Indices = npt.NDArray[np.int64]


def deal_groups(groups: Groups, clients: int, seed: int) -> list[Indices]:
    """Deal whole groups: the largest first, each to the client that has fewest images so far.

    Args:
        groups: int64 [N], each training image's group.
        clients: how many; each gets one group at least.
        seed: of the order of groups of one size, and of who gets which.

    Returns:
        One int64 array of indices per client, in random order, read-only.

    Raises:
        RecastError: fewer groups than clients.
    """
    _, group_of, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    if len(sizes) < clients:
        raise RecastError(
            f"partition natural: {len(sizes)} groups for {clients} clients: use at most "
            f"{len(sizes)} clients"
        )
    rng = np.random.default_rng((seed, 3))
    order = rng.permutation(len(sizes))
    order = order[np.argsort(-sizes[order], kind="stable")]
    names = rng.permutation(clients)
    held = np.zeros(clients, dtype=np.int64)
    owner = np.empty(len(sizes), dtype=np.int64)
    for group in order.tolist():
        place = int(np.argmin(held))
        held[place] += sizes[group]
        owner[group] = names[place]
    owners = owner[group_of.reshape(-1)]
    parts = [rng.permutation(np.flatnonzero(owners == client)) for client in range(clients)]
    for part in parts:
        part.flags.writeable = False
    return parts


def own_groups(
    groups: Groups, parts: list[Indices], test_groups: Groups | None, count: int
) -> Indices:
    """Return int64 [count]: the client that has the test image's group, -1 where nobody has."""
    owner = np.full(count, -1, dtype=np.int64)
    if test_groups is not None:
        for client, part in enumerate(parts):
            owner[np.isin(test_groups, groups[part])] = client
    return owner
