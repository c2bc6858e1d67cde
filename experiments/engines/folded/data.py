"""The images of a task as the folded engine holds them: once, with each node's row numbers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from client.data import load_dataset, parse_task, shares
from recast_core.folded import ImageStore
from recast_core.settings import Settings


@dataclass(frozen=True, eq=False)
class NodeRows:
    """One node's share of a task: rows of its images, and their labels.

    Attributes:
        task: whose images they are.
        learn: int64 ``[n]`` rows of the training images.
        labels: int64 ``[n]``, global class ids.
        judge: int64 ``[m]`` rows of the test images, which follow all training images.
        judge_labels: int64 ``[m]``.
        local_classes: classes among the training images.
    """

    task: TaskImages
    learn: Tensor
    labels: Tensor
    judge: Tensor
    judge_labels: Tensor
    local_classes: int

    @property
    def test_examples(self) -> int:
        """How many test images there are."""
        return len(self.judge)

    @property
    def classes(self) -> int:
        """Of the task as a whole."""
        return self.task.classes


@dataclass(eq=False)
class TaskImages:
    """A task's images and who has which.

    Attributes:
        images: uint8, training images and then test images.
        classes: of the task as a whole.
        nodes: by partition number.
        store: the images on the device, for the model that was last used.
        head_only: features at the bank's start by row, NaN where not computed yet.
    """

    images: Tensor
    classes: int
    nodes: Sequence[NodeRows] = ()
    store: ImageStore | None = None
    head_only: Tensor | None = None
    _of: object = field(default=None, repr=False)

    def on(self, model: object, make: Callable[[Tensor], ImageStore]) -> ImageStore:
        """The store for ``model``, as ``make`` makes it of the images; any other's is forgotten."""
        self.belong_to(model)
        if self.store is None:
            self.store = make(self.images)
        return self.store

    def belong_to(self, model: object) -> None:
        """Forget what was computed for another model."""
        if self._of is not model:
            self.store = self.head_only = None
            self._of = model


def load_task(source: str, size: int, nodes: int, settings: Settings) -> TaskImages:
    """Load a task and divide it as ``client.data.partition`` does for each node.

    Args:
        source: DATA specification.
        size: pixels a side, for images that come in many sizes.
        nodes: how many share it.
        settings: of the run; partition scheme and seed.

    Raises:
        RecastError: data absent or unreadable, or a partition that they do not allow.
    """
    dataset = load_dataset(parse_task(source), size, skip_unreadable=settings.skip_unreadable)
    learn, judge = shares(dataset, nodes, settings.partition, settings.seed)
    labels, judge_labels = (torch.from_numpy(y) for y in (dataset.y_train, dataset.y_test))
    images = torch.from_numpy(np.concatenate([dataset.x_train, dataset.x_test]))
    task = TaskImages(images, len(dataset.classes))
    nodes_rows = []
    for mine, held_out in zip(learn, judge, strict=True):
        rows, test = torch.from_numpy(mine.copy()), torch.from_numpy(held_out)
        present = len(np.unique(dataset.y_train[mine]))
        judged = test + len(dataset.y_train)
        nodes_rows.append(NodeRows(task, rows, labels[rows], judged, judge_labels[test], present))
    task.nodes = nodes_rows
    return task
