"""What a client holds, wherever it lies: a model, images of a task, and what it remembers."""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping
from typing import Protocol, TypeVar

import torch
from torch import Tensor, nn

from client.data import UNLABELLED
from client.residuals import Store
from protos import recast_v1_pb2 as pb
from recast_core.secure.members import Identity
from recast_core.settings import Settings
from recast_core.start import Start


class Model(Protocol):
    """What learns by one vector."""

    @property
    def start(self) -> Start:
        """Where its vector counts from."""

    @property
    def head(self) -> nn.Module:
        """The deployed classifier."""


class TaskData(Protocol):
    """A client's images of a task, wherever they lie."""

    @property
    def labels(self) -> Tensor:
        """Of the training images that have one: int64 ``[n]``, global class ids."""

    @property
    def labelled(self) -> Tensor:
        """Which of the training images have a label: bool ``[N]``, ``n`` of them true."""

    @property
    def test_examples(self) -> int:
        """How many test images there are."""

    @property
    def classes(self) -> int:
        """Of the task as a whole."""

    @property
    def local_classes(self) -> int:
        """Among the training images with a label."""

    @property
    def origin(self) -> str:
        """What images these are: other text for those of a round in which they have drifted."""

    @property
    def class_names(self) -> tuple[str, ...]:
        """What the labels count in: the task's own list once it is known; none without names."""


def all_labels(data: TaskData) -> Tensor:
    """Labels of all training images: int64 ``[N]``, -1 for none."""
    labels = torch.full((len(data.labelled),), UNLABELLED)
    labels[data.labelled] = data.labels
    return labels


M = TypeVar("M", bound=Model)
D = TypeVar("D", bound=TaskData)
M_co = TypeVar("M_co", bound=Model, covariant=True)
D_co = TypeVar("D_co", bound=TaskData, covariant=True)


class Holdings(Protocol[M_co, D_co]):
    """What a client has and remembers between messages."""

    @property
    def number(self) -> int:
        """A stable number that its random generator depends on."""

    @property
    def settings(self) -> Settings:
        """Of the run."""

    @property
    def tasks(self) -> Mapping[int, pb.Task]:
        """The tasks that were last announced, by number."""

    @property
    def simulated(self) -> bool:
        """Whether it is a part of an experiment: its noise can be repeated and hides nobody."""

    @property
    def residuals(self) -> Store:
        """Where what its updates have not said yet is kept, and heads of earlier tasks."""

    @property
    def notes(self) -> MutableMapping[str, bool]:
        """What it found out about its own images, for as long as the process lasts."""

    @property
    def identity(self) -> Identity | None:
        """The certificate that it vouches for its key with, where it has one."""

    @property
    def least_sum(self) -> int:
        """Clients that any sum with its hidden update must be of."""

    def remember(self, tasks: Mapping[int, pb.Task]) -> None:
        """Remember the tasks, so that rounds need not repeat their names."""

    def holds(self, sha256: bytes) -> bool:
        """Whether the bank with this identity is here and sound."""

    def store(self, content: bytes, sha256: bytes) -> None:
        """Keep a bank that was sent.

        Raises:
            RecastError: it is not what it says, or cannot be written.
        """

    def keep(self, start: Start, method: str) -> None:
        """Keep what this client made for itself: a method's start, or a bank if ``method`` is "".

        Raises:
            RecastError: it cannot be written.
        """

    def model(self, prefix: int) -> M_co | None:
        """The model with the bank or method whose identity starts with ``prefix``, if it is here.

        Raises:
            RecastError: it is for another backbone.
        """

    def data(self, task: pb.Task, round_: int = 0) -> D_co | None:
        """The client's images of a task in a round, or ``None`` if it has none.

        Round 0 is the last one: images may drift from round to round.

        Labels count in the task's classes where these are given, else in the client's own list.

        Raises:
            RecastError: data that cannot be read or divided, or classes that are not the task's.
        """

    def lacks(self, task: pb.Task) -> str:
        """Where this client looked for images of a task in vain: one line, for the server too."""
