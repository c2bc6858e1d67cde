"""The images of a task as the folded engine holds them: once, with each node's row numbers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

from client.data import UNLABELLED, known_labels, load_dataset, parse_task, shares
from client.data.class_ids import map_labels
from recast_core.classes import Names
from recast_core.folded import ImageStore
from recast_core.settings import Settings


@dataclass(frozen=True, eq=False)
class NodeRows:
    """One node's share of a task: rows of its images, and their labels.

    Attributes:
        task: whose images they are.
        learn: int64 ``[n]`` rows of the training images that have a label.
        labels: int64 ``[n]``, global class ids.
        all_rows: int64 ``[N]`` rows of the training images, with and without a label.
        labelled: bool ``[N]``, which of them ``learn`` are.
        judge: int64 ``[m]`` rows of the test images, which follow all training images.
        judge_labels: int64 ``[m]``.
        local_classes: classes among the training images with a label.
        class_names: what labels count in.
    """

    task: TaskImages
    learn: Tensor
    labels: Tensor
    all_rows: Tensor
    labelled: Tensor
    judge: Tensor
    judge_labels: Tensor
    local_classes: int
    class_names: Names

    @property
    def origin(self) -> str:
        """See ``client.turn.TaskData``."""
        return self.task.source

    @property
    def test_examples(self) -> int:
        """How many test images there are."""
        return len(self.judge)

    @property
    def classes(self) -> int:
        """Of the task as a whole."""
        return len(self.class_names)

    def in_task_ids(self, classes: Names) -> NodeRows:
        """The same rows with labels that count in ``classes``; as they are where these are none.

        Raises:
            RecastError: a class that occurs is none of these, or could be two.
        """
        if not classes or classes == self.class_names:
            return self
        parts = [self.labels.numpy(), self.judge_labels.numpy()]
        labels, judge_labels = map_labels(parts, self.class_names, classes)
        return replace(
            self,
            labels=torch.from_numpy(labels),
            judge_labels=torch.from_numpy(judge_labels),
            class_names=classes,
        )


@dataclass(eq=False)
class TaskImages:
    """A task's images and who has which.

    Attributes:
        images: uint8, training images and then test images.
        class_names: what labels count in, as the data's source has it.
        nodes: by partition number.
        store: the images on the device, for the model that was last used.
        head_only: features at the bank's start by row, NaN where not computed yet.
        source: DATA specification.
    """

    images: Tensor
    class_names: Names
    nodes: Sequence[NodeRows] = ()
    store: ImageStore | None = None
    head_only: Tensor | None = None
    source: str = ""
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
        settings: of the run; partition scheme, seed and how many labels there are.

    Raises:
        RecastError: data absent or unreadable, or a partition or labels that they do not allow.
    """
    dataset = load_dataset(parse_task(source), size, skip_unreadable=settings.skip_unreadable)
    learn, judge = shares(dataset, nodes, settings.partition, settings.seed)
    known = known_labels(dataset, settings.labels, settings.seed)
    judge_labels = torch.from_numpy(dataset.y_test)
    images = torch.from_numpy(np.concatenate([dataset.x_train, dataset.x_test]))
    task = TaskImages(images, dataset.classes, source=source)
    nodes_rows = []
    for mine, held_out in zip(learn, judge, strict=True):
        test, labelled = torch.from_numpy(held_out), known[mine] != UNLABELLED
        labels, rows = known[mine][labelled], torch.from_numpy(mine.copy())
        nodes_rows.append(
            NodeRows(
                task,
                learn=rows if labelled.all() else rows[torch.from_numpy(labelled)],
                labels=torch.from_numpy(labels),
                all_rows=rows,
                labelled=torch.from_numpy(labelled),
                judge=test + len(dataset.y_train),
                judge_labels=judge_labels[test],
                local_classes=len(np.unique(labels)),
                class_names=dataset.classes,
            )
        )
    task.nodes = nodes_rows
    return task
