"""A client's turn: what a client holds, what it wants computed, and who computes it.

What a client decides is written once, in `client.answer`, as a generator for each message: it
yields the work that takes time and is sent what came of it. An `Engine` does that work for one
client or for many at once, and decides nothing else.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Generator, Hashable, Iterable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeAlias, TypeVar

import torch
from torch import Tensor, nn

from client.data import UNLABELLED
from client.residuals import Store
from protos import recast_v1_pb2 as pb
from recast_core.errors import RecastError
from recast_core.secure.members import Identity
from recast_core.settings import Settings
from recast_core.start import Start
from recast_core.wire.codec import Vector
from recast_core.wire.messages import Hyperparameters, RefusedError


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
        """Where what its updates have not said yet is kept."""

    @property
    def notes(self) -> MutableMapping[str, bool]:
        """What it found out about its own images, for as long as the process lasts."""

    @property
    def identity(self) -> Identity | None:
        """The certificate that it vouches for its key with, where it has one."""

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

    def data(self, task: pb.Task) -> D_co | None:
        """The client's images of a task, or ``None`` if it has none.

        Labels count in the task's classes where these are given, else in the client's own list.

        Raises:
            RecastError: data that cannot be read or divided, or classes that are not the task's.
        """

    def lacks(self, task: pb.Task) -> str:
        """Where this client looked for images of a task in vain: one line, for the server too."""


@dataclass(frozen=True, eq=False)
class Lesson(Generic[M, D]):
    """Work: train the model on the data, from a vector to a vector ``[D]``."""

    model: M
    data: D
    vector: Vector
    hyper: Hyperparameters
    seed: int
    local: bool = False

    @property
    def alike(self) -> Hashable:
        """Work that is alike is done together."""
        return Lesson, self.vector.tobytes()


@dataclass(frozen=True, eq=False)
class Look(Generic[M, D]):
    """Work: features ``[N, d]`` of the labelled training images.

    Attributes:
        vector: the start's where ``None``.
        local: BatchNorms use statistics of the client's training images.
    """

    model: M
    data: D
    vector: Vector | None
    local: bool = False

    @property
    def alike(self) -> Hashable:
        """See ``Lesson``."""
        return Look, self.vector is None, self.local


@dataclass(frozen=True, eq=False)
class Exam(Generic[M, D]):
    """Work: the right answers among the test images.

    Attributes:
        vector: the start's where ``None``.
        kind: of head.
        head: as the server sent it; empty where it is to be fitted on the training images, or
            where the deployed one is kept.
        local: BatchNorms use statistics of the client's training images.
    """

    model: M
    data: D
    vector: Vector | None
    kind: str
    head: bytes
    local: bool = False

    @property
    def alike(self) -> Hashable:
        """See ``Lesson``."""
        return Exam, self.kind, self.vector is None, self.local


@dataclass(frozen=True, eq=False)
class Guess(Generic[M, D]):
    """Work: logits ``[n, C]`` of the deployed classifier for training images, on the CPU.

    Attributes:
        vector: the start's where ``None``.
        wanted: int64 ``[n]``, which of all training images.
        by: likewise, whose statistics BatchNorms use; frozen ones where ``None``.
    """

    model: M
    data: D
    vector: Vector | None
    wanted: Tensor
    by: Tensor | None

    @property
    def alike(self) -> Hashable:
        """See ``Lesson``."""
        return Guess


Work: TypeAlias = Lesson[M, D] | Look[M, D] | Exam[M, D] | Guess[M, D]
# A lesson is answered by a vector, a look by features, an exam by a count, a guess by logits.
Turn: TypeAlias = Generator[Work[M, D], Any, pb.ToServer]


class Engine(ABC, Generic[M, D]):
    """Does the work of clients that answer the same message.

    What a method raises is raised in each of the clients; an error in the place of a vector in one.
    """

    @abstractmethod
    def train(self, lessons: Sequence[Lesson[M, D]]) -> Iterable[Vector | RecastError]:
        """Each client's vector afterwards."""

    @abstractmethod
    def features(self, looks: Sequence[Look[M, D]]) -> Iterable[Tensor]:
        """Each client's features."""

    @abstractmethod
    def examine(self, exams: Sequence[Exam[M, D]]) -> Iterable[int]:
        """Each client's right answers; the exams are alike."""

    @abstractmethod
    def guess(self, guesses: Sequence[Guess[M, D]]) -> Iterable[Tensor]:
        """Each client's logits."""


def take(turns: Sequence[Turn[M, D]], engine: Engine[M, D]) -> list[pb.ToServer]:
    """The replies of clients that answer one message; what all want next is done together."""
    replies = [pb.ToServer()] * len(turns)
    going = list(enumerate(turns))
    found: Iterable[Any] = [None] * len(turns)
    while going:
        waiting, works = [], []
        for (place, turn), one in zip(going, found, strict=True):
            try:
                failed = isinstance(one, Exception)
                work = turn.throw(one.with_traceback(None)) if failed else turn.send(one)
            except StopIteration as end:
                replies[place] = end.value
            else:
                waiting.append((place, turn))
                works.append(work)
        going, found = waiting, _done(works, engine) if works else ()
    return replies


def _done(works: Sequence[Any], engine: Engine[M, D]) -> Iterable[Any]:
    alike: dict[Hashable, list[int]] = {}
    for place, work in enumerate(works):
        alike.setdefault(work.alike, []).append(place)
    if len(alike) == 1:
        return _alike(works, engine)
    found: list[Any] = [None] * len(works)
    for places in alike.values():
        for place, one in zip(places, _alike([works[p] for p in places], engine), strict=True):
            found[place] = one
    return found


def _alike(works: Sequence[Any], engine: Engine[M, D]) -> Iterable[Any]:
    try:
        match works[0]:
            case Lesson():
                return engine.train(works)
            case Look():
                return engine.features(works)
            case Exam():
                return engine.examine(works)
            case _:
                return engine.guess(works)
    except (RefusedError, RecastError) as error:
        return [error] * len(works)
