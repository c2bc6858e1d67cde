"""What trains for all simulated clients together: an attached bank, or another method."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from experiments.engines.folded.data import TaskImages
from recast_core.backbones import Preprocess
from recast_core.copies import copied
from recast_core.errors import RecastError
from recast_core.fitting import EVALUATION_BATCH
from recast_core.folded import (
    BankFold,
    Chunking,
    FoldedClient,
    Graphs,
    How,
    ImageStore,
    MethodFold,
    SplitModel,
    Trained,
    features_at,
    train,
)
from recast_core.folded.threads import on_each_core
from recast_core.learner import BankLearner, Learned, Learner, MethodLearner
from recast_core.methods import parse_method
from recast_core.objectives import objective_of
from recast_core.recipe import Recipe
from recast_core.start import Start
from recast_core.statistics import features_by, spread_choice
from recast_core.wire.codec import Vector

Finished = Callable[[int], None]


@dataclass(frozen=True)
class FoldedOptions:
    """How folded training runs; the defaults keep parity with the sequential engine to 1e-5.

    Attributes:
        chunk: clients trained at once; 0 chooses.
        half: bfloat16 products.
        compiled: ``torch.compile``.
    """

    chunk: int = 0
    half: bool = False
    compiled: bool = False


class FoldedModel(Protocol):
    """A ``recast_core.learner.Learner`` for many clients at once."""

    @property
    def start(self) -> Start:
        """Where vectors count from."""

    def train(
        self,
        task: TaskImages,
        clients: Sequence[FoldedClient],
        classes: int,
        recipe: Recipe,
        vector: Vector,
        finished: Finished,
        head: nn.Module | None = None,
    ) -> Sequence[Learned | RecastError]:
        """Each client's result of training from ``vector``, or what went wrong with it alone.

        Args:
            task: whose images.
            clients: their shares and seeds.
            classes: of the task, in which their labels count.
            recipe: of the round.
            vector: float32 ``[D]``.
            finished: is told how many more are done.
            head: the classifier that is kept; the deployed one where ``None``.

        Raises:
            RecastError: images that nothing can be learned from.
        """

    def prepare(self, task: TaskImages) -> None:
        """Do before a round what its first training of all labelled images would do."""

    @property
    def head(self) -> nn.Module:
        """The deployed classifier."""

    def features(self, task: TaskImages, rows: Tensor, vector: Tensor) -> Tensor:
        """Features ``[N, d]`` of rows of the task's images with a vector ``[D]``."""

    def features_alone(
        self, task: TaskImages, rows: Sequence[Tensor], vector: Tensor
    ) -> list[Tensor]:
        """The same for the rows of several clients, with the bits that each has alone."""

    def features_by(self, task: TaskImages, rows: Tensor, vector: Tensor, by: Tensor) -> Tensor:
        """The same where BatchNorms use the statistics of the images in rows ``by``."""


@dataclass(eq=False)
class FoldedBank:
    """RECAST.

    Attributes:
        split: the attached model.
        preprocess: of its backbone.
        options: how it trains.
        workers: threads on a CPU, a client each.
    """

    split: SplitModel
    preprocess: Preprocess
    options: FoldedOptions
    workers: int

    def __post_init__(self) -> None:
        self._fold = BankFold(self.split, self.options.half, self.options.compiled)
        cuda = self._fold.device.type == "cuda"
        self._graphs = Graphs() if cuda else None

    @property
    def start(self) -> Start:
        """The bank."""
        return self.split.net.bank

    def prepare(self, task: TaskImages) -> None:
        """See ``FoldedModel``."""
        self._store(task).ensure(task.labelled_rows(), self.workers)

    def train(
        self,
        task: TaskImages,
        clients: Sequence[FoldedClient],
        classes: int,
        recipe: Recipe,
        vector: Vector,
        finished: Finished,
        head: nn.Module | None = None,
    ) -> Sequence[Learned | RecastError]:
        """See ``FoldedModel``."""
        found = train(
            self._fold,
            self._store(task),
            clients,
            objective_of(recipe.objective, head or self.head, classes),
            recipe,
            torch.from_numpy(vector),
            How(Chunking(self.options.chunk or None), self.workers, finished, self._graphs),
        )
        return _each(found)

    @property
    def head(self) -> nn.Module:
        """See ``FoldedModel``."""
        return self.split.net.own_head

    def features_by(self, task: TaskImages, rows: Tensor, vector: Tensor, by: Tensor) -> Tensor:
        """See ``FoldedModel``."""
        statistics, store = self.split.net.statistics, self._store(task)
        if statistics is None:
            return self.features(task, rows, vector)
        by = by[spread_choice(len(by))]
        store.ensure(torch.cat([rows, by]), self.workers)
        self.split.net.eval().coefficients.load(vector)
        inputs = (store.inputs(part.to(self.split.net.device)) for part in (by, rows))
        return features_by(self.split.suffix, statistics, (next(inputs), next(inputs)))

    def features_alone(
        self, task: TaskImages, rows: Sequence[Tensor], vector: Tensor
    ) -> list[Tensor]:
        """See ``FoldedModel``."""
        return _alone(BankLearner(self.split, self.preprocess), task, rows, vector, self.workers)

    def features(self, task: TaskImages, rows: Tensor, vector: Tensor) -> Tensor:
        """See ``FoldedModel``."""
        return features_at(self.split, self._store(task), rows, vector, self.workers)

    def _store(self, task: TaskImages) -> ImageStore:
        prefix, device = self.split.prefix, self.split.net.device
        return task.on(
            self,
            lambda images: ImageStore(images, self.preprocess, prefix, device),
        )


@dataclass(eq=False)
class FoldedMethod:
    """Another method: folded on a GPU where few parameters differ, else client by client.

    A CPU is as fast with one client at a time, and gives the bits of the sequential engine.
    """

    learner: MethodLearner
    options: FoldedOptions
    workers: int

    @property
    def start(self) -> Start:
        """Of the method."""
        return self.learner.start

    def prepare(self, task: TaskImages) -> None:
        """See ``FoldedModel``: nothing."""

    def train(
        self,
        task: TaskImages,
        clients: Sequence[FoldedClient],
        classes: int,
        recipe: Recipe,
        vector: Vector,
        finished: Finished,
        head: nn.Module | None = None,
    ) -> Sequence[Learned | RecastError]:
        """See ``FoldedModel``."""
        learner = self.learner if head is None else self.learner.keeping(head)
        if learner.device.type == "cuda" and parse_method(learner.start.method).foldable:
            found = train(
                MethodFold(learner.model),
                self._store(task),
                clients,
                objective_of(recipe.objective, head or self.head, classes),
                recipe,
                torch.from_numpy(vector),
                How(Chunking(self.options.chunk or None), finished=finished),
            )
            return _each(found)

        def alone(own: MethodLearner, client: FoldedClient) -> Learned | RecastError:
            images, labels = task.images[client.all_rows], client.all_labels
            rest = recipe, client.seed, client.local
            try:
                model = own.expecting(client.mix)
                return model.fit(vector, images, labels, classes, *rest)
            except RecastError as error:
                return error

        workers = self.workers if learner.device.type == "cpu" else 0
        make = (lambda: copied(learner)) if workers else (lambda: learner)
        learned = []
        for one in on_each_core(clients, workers, make, alone):
            learned.append(one)
            finished(1)
        return learned

    @property
    def head(self) -> nn.Module:
        """See ``FoldedModel``."""
        return self.learner.head

    def features_by(self, task: TaskImages, rows: Tensor, vector: Tensor, by: Tensor) -> Tensor:
        """See ``FoldedModel``."""
        return self.learner.features(task.images[rows], vector.numpy(), task.images[by])

    def features_alone(
        self, task: TaskImages, rows: Sequence[Tensor], vector: Tensor
    ) -> list[Tensor]:
        """See ``FoldedModel``."""
        workers = self.workers if self.learner.device.type == "cpu" else 0
        return _alone(self.learner, task, rows, vector, workers)

    def features(self, task: TaskImages, rows: Tensor, vector: Tensor) -> Tensor:
        """See ``FoldedModel``."""
        found = [
            self.learner.features(task.images[part], vector.numpy())
            for part in rows.split(EVALUATION_BATCH)
        ]
        return torch.cat(found)

    def _store(self, task: TaskImages) -> ImageStore:
        learner = self.learner
        return task.on(
            self,
            lambda images: ImageStore(images, learner.preprocess, None, learner.device),
        )


def _alone(
    learner: Learner, task: TaskImages, rows: Sequence[Tensor], vector: Tensor, workers: int
) -> list[Tensor]:
    """Features of several clients' images, one client after another, on one core."""

    def work(alone: Learner, own: Tensor) -> Tensor:
        return alone.features(task.images[own], vector.numpy())

    return [*on_each_core(rows, min(workers, 1), lambda: learner, work)]


def _each(found: Trained) -> list[Learned | RecastError]:
    vectors, losses = found.coefficients.numpy(), found.losses.tolist()
    return [Learned(vector, loss) for vector, loss in zip(vectors, losses, strict=True)]
