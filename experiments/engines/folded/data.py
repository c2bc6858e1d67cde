"""The images of a task as the folded engine holds them: once, with each node's row numbers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from client.data import (
    UNLABELLED,
    forget_datasets,
    forget_shares,
    known_labels,
    load_dataset,
    parse_task,
    shares,
)
from client.data.class_ids import map_labels
from recast_core.classes import Names
from recast_core.folded import ImageStore
from recast_core.settings import Settings

# From so many nodes on their shares are kept in the table alone, and their images once.
MANY = 50_000
# Up to so many nodes each has a share of two kilobytes made once, and not in each round.
KEPT = 10_000


@dataclass(frozen=True, eq=False)
class NodeRows:
    """One node's share of a task: rows of its images, and their labels.

    Attributes:
        task: whose images they are.
        number: of the node, from 0.
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
    number: int
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


@dataclass(frozen=True, eq=False)
class Division:
    """Who has which images of a task, as one table: a million nodes are a few arrays.

    Attributes:
        rows: int64 ``[R]``, training images, node by node.
        ends: int64 ``[J + 1]``, where each node's begin and end.
        labels: int64 ``[R]``, ``UNLABELLED`` for none.
        judge: int64 ``[M]``, rows of test images, node by node.
        judge_ends: int64 ``[J + 1]``.
        judge_labels: int64 ``[M]``.
        local_classes: int64 ``[J]``, classes among a node's labels.
    """

    rows: NDArray[np.int64]
    ends: NDArray[np.int64]
    labels: NDArray[np.int64]
    judge: NDArray[np.int64]
    judge_ends: NDArray[np.int64]
    judge_labels: NDArray[np.int64]
    local_classes: NDArray[np.int64]

    def arrays(self) -> dict[str, NDArray[np.int64]]:
        """All of it, by name: ``Division(**arrays)`` is the same."""
        return {one.name: getattr(self, one.name) for one in fields(self)}


@dataclass(eq=False)
class TaskImages:
    """A task's images and who has which.

    Attributes:
        images: uint8, training images and then test images.
        class_names: what labels count in, as the data's source has it.
        division: who has which.
        store: the images on the device, for the model that was last used.
        head_only: features at the bank's start by row, NaN where not computed yet.
        source: DATA specification.
    """

    images: Tensor
    class_names: Names
    division: Division
    store: ImageStore | None = None
    head_only: Tensor | None = None
    source: str = ""
    _of: object = field(default=None, repr=False)

    def __post_init__(self) -> None:
        self._table = {name: torch.from_numpy(one) for name, one in self.division.arrays().items()}
        self._ends = self.division.ends.tolist()
        self._judge_ends = self.division.judge_ends.tolist()
        self._complete = bool((self.division.labels != UNLABELLED).all())
        self._nodes: dict[int, NodeRows] = {}

    def node(self, number: int) -> NodeRows:
        """The share of a node, from 0, of slices; of very many nodes made anew each time."""
        found = self._nodes.get(number)
        if found is None:
            found = self._share(number)
            if len(self._ends) <= KEPT:
                self._nodes[number] = found
        return found

    def _share(self, number: int) -> NodeRows:
        table = self._table
        mine = slice(self._ends[number], self._ends[number + 1])
        tests = slice(self._judge_ends[number], self._judge_ends[number + 1])
        rows, labels = table["rows"][mine], table["labels"][mine]
        labelled = labels != UNLABELLED
        return NodeRows(
            self,
            number,
            learn=rows if self._complete else rows[labelled],
            labels=labels if self._complete else labels[labelled],
            all_rows=rows,
            labelled=labelled,
            judge=table["judge"][tests],
            judge_labels=table["judge_labels"][tests],
            local_classes=int(self.division.local_classes[number]),
            class_names=self.class_names,
        )

    def labelled_rows(self) -> Tensor:
        """The training images with a label, of all nodes: int64 ``[n]``."""
        labels: Tensor = self._table["labels"]
        return self._table["rows"][labels != UNLABELLED]

    def relabel(self, number: int, labels: Tensor) -> None:
        """Give a node's labelled images other labels, int64 ``[n]``."""
        mine = slice(self._ends[number], self._ends[number + 1])
        own = self._table["labels"][mine]
        own[own != UNLABELLED] = labels
        self._nodes.pop(number, None)
        self.division.local_classes[number] = len(labels.unique())

    def weigh(self, number: int) -> int:
        """How many images a node has."""
        return int(self._ends[number + 1] - self._ends[number])

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
    rows, ends = _flat(learn)
    tests, judge_ends = _flat(judge)
    if nodes >= MANY:
        del learn, judge
        forget_shares()
    labels = known[rows]
    division = Division(
        rows=rows,
        ends=ends,
        labels=labels,
        judge=tests + len(dataset.y_train),
        judge_ends=judge_ends,
        judge_labels=dataset.y_test[tests],
        local_classes=_classes_of_each(labels, ends),
    )
    images = torch.from_numpy(np.concatenate([dataset.x_train, dataset.x_test]))
    if nodes >= MANY:
        forget_datasets()
    return TaskImages(images, dataset.classes, division, source=source)


def _flat(parts: Sequence[NDArray[np.int64]]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The parts one after another, and where each begins and ends."""
    ends = np.cumsum([0, *map(len, parts)], dtype=np.int64)
    return np.concatenate([*parts, np.empty(0, np.int64)]), ends


def _classes_of_each(labels: NDArray[np.int64], ends: NDArray[np.int64]) -> NDArray[np.int64]:
    """How many classes occur among each node's labels."""
    owner = np.repeat(np.arange(len(ends) - 1), np.diff(ends))[labels != UNLABELLED]
    there = labels[labels != UNLABELLED]
    pairs = np.unique(owner * (int(there.max(initial=0)) + 1) + there)
    counts = np.bincount(pairs // (int(there.max(initial=0)) + 1), minlength=len(ends) - 1)
    return counts.astype(np.int64)
