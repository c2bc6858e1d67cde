"""A client's labels as ids of the task's class list."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from client.data.arrays import ClientData, Dataset, Labels
from recast_core.classes import Names, task_ids


def in_task_ids(data: ClientData, classes: Sequence[str]) -> ClientData:
    """The same images with labels that count in ``classes``; as they are where these are none.

    Raises:
        RecastError: a class that occurs is none of these, or could be two; see `task_ids`.
    """
    names = tuple(classes)
    if not names or not data.class_names or names == data.class_names:
        return data
    y_train, y_test = map_labels((data.y_train, data.y_test), data.class_names, names)
    return replace(data, y_train=y_train, y_test=y_test, num_classes=len(names), class_names=names)


def dataset_in_task_ids(data: Dataset, classes: Names) -> Dataset:
    """The same for a whole task's images.

    Raises:
        RecastError: as `in_task_ids`.
    """
    if not classes or classes == data.classes:
        return data
    y_train, y_test = map_labels((data.y_train, data.y_test), data.classes, classes)
    return replace(data, y_train=y_train, y_test=y_test, classes=classes)


def map_labels(labels: Sequence[Labels], own: Names, classes: Names) -> list[Labels]:
    """Labels of a list ``own`` (-1: none) as ids of ``classes``, part by part.

    Raises:
        RecastError: as `task_ids`.
    """
    used = {int(label) for part in labels for label in np.unique(part) if label >= 0}
    # What has no label, -1, stays that: the last place of the table.
    table = np.array([*task_ids(own, classes, used), -1], dtype=np.int64)
    return [table[part] for part in labels]
