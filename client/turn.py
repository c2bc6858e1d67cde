"""A client's turn: what it wants computed, and who computes it.

What a client decides is written once, in `client.answer`, as a generator for each message: it
yields the work that takes time and is sent what came of it. An `Engine` does that work for one
client or for many at once, and decides nothing else.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Generator, Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeAlias

from torch import Tensor, nn

from client.holdings import D, M
from protos import recast_v1_pb2 as pb
from recast_core.errors import RecastError
from recast_core.heads import right_answers
from recast_core.learner import Learned
from recast_core.wire.codec import Vector
from recast_core.wire.kept_head import DEPLOYED, Kept
from recast_core.wire.messages import Hyperparameters, RefusedError


@dataclass(frozen=True, eq=False)
class Lesson(Generic[M, D]):
    """Work: train the model on the data, from a vector to a vector ``[D]``.

    ``kept`` is the classifier that the objective goes through, where one is kept; ``mix`` the
    label mix that is expected where there are no labels, float32 ``[C]``.
    """

    model: M
    data: D
    vector: Vector
    hyper: Hyperparameters
    seed: int
    local: bool = False
    kept: Kept = DEPLOYED
    mix: Tensor | None = None

    @property
    def alike(self) -> Hashable:
        """Work that is alike is done together."""
        return Lesson, self.vector.tobytes(), self.kept.head, self.mix is None


@dataclass(frozen=True, eq=False)
class Look(Generic[M, D]):
    """Work: features ``[N, d]`` of the labelled training images.

    Attributes:
        vector: the start's where ``None``.
        local: BatchNorms use statistics of the client's training images.
        told: others will count on the last bit, which must not depend on the engine.
    """

    model: M
    data: D
    vector: Vector | None
    local: bool = False
    told: bool = False

    @property
    def alike(self) -> Hashable:
        """See ``Lesson``."""
        return Look, _as_bytes(self.vector), self.local, self.told


@dataclass(frozen=True, eq=False)
class Exam(Generic[M, D]):
    """Work: the right answers among the test images.

    Attributes:
        vector: the start's where ``None``.
        kind: of head.
        head: as the server sent it; empty where it is to be fitted on the training images, or
            where the deployed one is kept.
        local: BatchNorms use statistics of the client's training images.
        mix: float32 ``[C]``, see ``right_answers``; of a classifier that is kept.
    """

    model: M
    data: D
    vector: Vector | None
    kind: str
    head: bytes
    local: bool = False
    mix: Tensor | None = None

    def right(self, head: nn.Module, features: Tensor, labels: Tensor) -> int:
        """Right answers of ``head``, or of the classifier that is kept where the mix counts.

        Args:
            head: from features to scores.
            features: float ``[N, d]``.
            labels: int64 ``[N]``.
        """
        if self.mix is not None:  # which is added to logits
            head = Kept(self.kind, self.head).classifier(self.model.head)
        return right_answers(head, features, labels, self.mix)

    @property
    def alike(self) -> Hashable:
        """See ``Lesson``."""
        return Exam, self.kind, self.head, _as_bytes(self.vector), self.local


@dataclass(frozen=True, eq=False)
class Guess(Generic[M, D]):
    """Work: logits ``[n, C]`` of the classifier that is kept for training images, on the CPU.

    Attributes:
        vector: the start's where ``None``.
        wanted: int64 ``[n]``, which of all training images.
        by: likewise, whose statistics BatchNorms use; frozen ones where ``None``.
        kept: the classifier.
    """

    model: M
    data: D
    vector: Vector | None
    wanted: Tensor
    by: Tensor | None
    kept: Kept = DEPLOYED

    @property
    def alike(self) -> Hashable:
        """See ``Lesson``."""
        return Guess


def _as_bytes(vector: Vector | None) -> bytes:
    return b"" if vector is None else vector.tobytes()


Work: TypeAlias = Lesson[M, D] | Look[M, D] | Exam[M, D] | Guess[M, D]
# A lesson is answered by what was learned, a look by features, an exam by a count, a guess by
# logits.
Turn: TypeAlias = Generator[Work[M, D], Any, pb.ToServer]


class Engine(ABC, Generic[M, D]):
    """Does the work of clients that answer the same message.

    What a method raises is raised in each of the clients; an error in the place of a result in one.
    """

    @abstractmethod
    def train(self, lessons: Sequence[Lesson[M, D]]) -> Iterable[Learned | RecastError]:
        """Each client's vector afterwards, and its loss."""

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
