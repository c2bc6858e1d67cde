"""The engine that divides the work of a round among a crew."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import accumulate
from typing import Any

from torch import Tensor

from client.turn import Engine, Exam, Guess, Lesson, Look
from experiments.engines.crew.base import Crew, Item
from experiments.engines.crew.parcels import OneWork, pack, unpack_results
from experiments.engines.folded.data import NodeRows
from experiments.engines.folded.models import FoldedModel
from experiments.engines.folded.together import TimeSplit
from recast_core.errors import RecastError
from recast_core.learner import Learned
from recast_core.pulse import begin


class Spread(Engine[FoldedModel, NodeRows]):
    """Every worker folds the clients that lie side by side in its share.

    On a CPU what a client learns does not depend on whoever else is in the batch, so that the
    number of workers changes no bit. Shares are runs of neighbours: a worker then prepares the
    images of the same clients in every round.
    """

    def __init__(self, crew: Crew, spent: TimeSplit, finished: Callable[[int], None]) -> None:
        """Divide among ``crew``; the rest as ``Together``."""
        self._crew, self._spent, self._finished = crew, spent, finished

    def train(
        self, lessons: Sequence[Lesson[FoldedModel, NodeRows]]
    ) -> Iterable[Learned | RecastError]:
        """See ``Engine``."""
        with self._spent.timed("training"):
            begin("training", lessons[0].hyper.epochs * sum(len(one.data.learn) for one in lessons))
            return self._divided(lessons, tensors=False, finished=self._finished)

    def features(self, looks: Sequence[Look[FoldedModel, NodeRows]]) -> Iterable[Tensor]:
        """See ``Engine``."""
        with self._spent.timed("evaluating"):
            begin("looking", sum(len(one.data.learn) for one in looks))
            return self._divided(looks, tensors=True)

    def examine(self, exams: Sequence[Exam[FoldedModel, NodeRows]]) -> Iterable[int]:
        """See ``Engine``."""
        with self._spent.timed("evaluating"):
            begin("evaluating", sum(len(one.data.judge) for one in exams))
            return self._divided(exams, tensors=False)

    def guess(self, guesses: Sequence[Guess[FoldedModel, NodeRows]]) -> Iterable[Tensor]:
        """See ``Engine``."""
        with self._spent.timed("evaluating"):
            begin("comparing", sum(len(one.wanted) for one in guesses))
            return self._divided(guesses, tensors=True)

    def _divided(
        self,
        works: Sequence[OneWork],
        *,
        tensors: bool,
        finished: Callable[[int], None] = lambda count: None,
    ) -> list[Any]:
        task = works[0].data.task
        self._crew.place(
            Item(
                "images",
                task.source.partition("=")[0],
                {"source": task.source, "classes": task.class_names},
                {"images": task.images.numpy(), **task.division.arrays()},
            )
        )
        order = sorted(range(len(works)), key=lambda place: works[place].data.number)
        weights = [1 + task.weigh(works[place].data.number) for place in order]
        parts = [[order[at] for at in part] for part in even(weights, self._crew.count)]
        told = self._crew.work(
            [pack([works[place] for place in part]) for part in parts],
            lambda which: finished(len(parts[which])),
        )
        found: list[Any] = [None] * len(works)
        for part, content in zip(parts, told, strict=True):
            for place, one in zip(part, unpack_results(content, tensors=tensors), strict=True):
                found[place] = one
        return found


def even(weights: Sequence[int], count: int) -> list[list[int]]:
    """At most ``count`` runs of neighbours of about equal weight, none of them empty."""
    ends = list(accumulate(weights))
    parts: list[list[int]] = [[] for _ in range(count)]
    for place, end in enumerate(ends):
        middle = end - weights[place] / 2
        parts[min(count - 1, int(count * middle / ends[-1]))].append(place)
    return [part for part in parts if part]
