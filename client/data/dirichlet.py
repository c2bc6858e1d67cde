"""Deal images by a Dirichlet draw for every class, through flwr-datasets."""

from __future__ import annotations

import os
import warnings
from typing import Any

import numpy as np
import numpy.typing as npt

from recast_core.extras import needed

Indices = npt.NDArray[np.int64]
_MIN_SIZES = (10, 1)


def deal_dirichlet(
    labels: npt.NDArray[np.int64], clients: int, alpha: float, seed: int
) -> list[Indices]:
    """Split by flwr-datasets' DirichletPartitioner, each client as full as can be had."""
    # Read when Hugging Face's `datasets` is imported: nothing here needs the network.
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ.setdefault("HF_DATASETS_OFFLINE", "1")
    os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
    with needed("a Dirichlet partition", "flwr-datasets", "sim"):
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
        return all_partitions(partitioner, clients)
    raise AssertionError("a minimum of 0 is always met")


def all_partitions(partitioner: Any, clients: int) -> list[Indices]:
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
