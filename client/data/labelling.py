"""Few labels: which of a task's training images have one."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from client.data.arrays import UNLABELLED, Dataset, Labels
from client.data.quotas import proportional
from recast_core.errors import RecastError

ALL = -1
"""The budget of a task whose images all have labels."""


def known_labels(dataset: Dataset, budget: int, seed: int) -> Labels:
    """Return the training labels as the clients see them: `UNLABELLED` where there is none.

    The choice is made once for the whole fleet and does not ask who has which image: a labelled
    image is dealt like any other. Classes get labels in proportion to their training images, each
    class one at least.

    Args:
        dataset: the task.
        budget: labelled images in the whole fleet; `ALL`, or more than there are: all of them.
        seed: of the choice.

    Returns:
        int64 [N], read-only; the data set's own array where all are known.

    Raises:
        RecastError: fewer labels than classes with training images, and not 0.
    """
    if budget == ALL or budget >= len(dataset.y_train):
        return dataset.y_train
    return _chosen(dataset, budget, seed)


@lru_cache(maxsize=32)
def _chosen(dataset: Dataset, budget: int, seed: int) -> Labels:
    labels = dataset.y_train
    known = np.full_like(labels, UNLABELLED)
    classes, counts = np.unique(labels, return_counts=True)
    if 0 < budget < len(classes):
        raise RecastError(
            f"labels {budget} for {len(classes)} classes: give at least one label per class, "
            "0 for none or -1 for all"
        )
    if budget:
        rng = np.random.default_rng((seed, 4))
        orders = [rng.permutation(np.flatnonzero(labels == label)) for label in classes]
        quotas = 1 + proportional(budget - len(classes), counts - 1, rng)
        for order, quota in zip(orders, quotas.tolist(), strict=True):
            known[order[:quota]] = labels[order[:quota]]
    known.flags.writeable = False
    return known
