"""The engine of many clients at once: one batch to train, each image once to evaluate."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from client.turn import Engine, Exam, Guess, Lesson, Look
from experiments.engines.folded.data import NodeRows
from experiments.engines.folded.models import FoldedModel
from recast_core.errors import RecastError
from recast_core.folded import FoldedClient, Judged
from recast_core.folded import count_correct as count_with_ridge
from recast_core.heads import head_kind, right_answers
from recast_core.learner import Learned
from recast_core.pulse import begin
from recast_core.wire.codec import Vector
from recast_core.wire.head_bytes import unpack_head_for


@dataclass
class TimeSplit:
    """Where the time of the messages pushed so far went, in seconds.

    Attributes:
        training: in ``recast_core.folded``.
        evaluating: likewise.
        grid: everything else: parsing, partitions, building replies.
        clients: messages answered.
    """

    training: float = 0.0
    evaluating: float = 0.0
    grid: float = 0.0
    clients: int = 0

    @contextmanager
    def timed(self, what: str) -> Iterator[None]:
        """Add the time until its end to the attribute ``what``."""
        began = time.monotonic()
        try:
            yield
        finally:
            setattr(self, what, getattr(self, what) + time.monotonic() - began)


class Together(Engine[FoldedModel, NodeRows]):
    """Does what clients want that answer the same message, and keeps the time.

    They have the model, the vector and the task in common.
    """

    def __init__(self, spent: TimeSplit, finished: Callable[[int], None]) -> None:
        """Add to ``spent``; ``finished`` is told how many clients are done while others train."""
        self._spent, self._finished = spent, finished

    def train(
        self, lessons: Sequence[Lesson[FoldedModel, NodeRows]]
    ) -> Iterable[Learned | RecastError]:
        """See ``Engine``."""
        first = lessons[0]
        classes = max(one.data.classes for one in lessons)
        clients = [_client(one) for one in lessons]
        with self._spent.timed("training"):
            begin("training", first.hyper.epochs * sum(len(one.labels) for one in clients))
            head = first.kept.classifier(first.model.head) if first.kept.head else None
            return first.model.train(
                first.data.task, clients, classes, first.hyper, first.vector, self._finished, head
            )

    def features(self, looks: Sequence[Look[FoldedModel, NodeRows]]) -> Iterable[Tensor]:
        """See ``Engine``."""
        with self._spent.timed("evaluating"):
            begin("looking", sum(len(one.data.learn) for one in looks))
            if looks[0].local:
                return [
                    one.model.features_by(
                        one.data.task, one.data.learn, _vector(one.model, one.vector),
                        one.data.all_rows,
                    )
                    for one in looks
                ]  # fmt: skip
            if looks[0].told:
                model, shares = looks[0].model, [one.data for one in looks]
                vector = _vector(model, looks[0].vector)
                rows = [share.learn for share in shares]
                return model.features_alone(shares[0].task, rows, vector)
            table = _table(looks)
        return (_at(table, one.data.learn) for one in looks)

    def examine(self, exams: Sequence[Exam[FoldedModel, NodeRows]]) -> Iterable[int]:
        """See ``Engine``."""
        with self._spent.timed("evaluating"):
            begin("evaluating", sum(len(one.data.judge) for one in exams))
            if exams[0].local:
                return [_by_own_images(one) for one in exams]
            table, kind, shares = _table(exams), exams[0].kind, [one.data for one in exams]
            if head_kind(kind).kept or exams[0].head:
                head = exams[0].model.head
                # With a mix an exam brings its own: see ``Exam.right``.
                if exams[0].head and any(one.mix is None for one in exams):
                    head = unpack_head_for(table, exams[0].head, kind)
                return [
                    one.right(head, _at(table, one.data.judge), one.data.judge_labels)
                    for one in exams
                ]
            if kind == "local":
                return count_with_ridge(
                    table, [Judged(s.learn, s.labels, s.judge, s.judge_labels) for s in shares]
                )
            return [_with_own(kind, table, share) for share in shares]

    def guess(self, guesses: Sequence[Guess[FoldedModel, NodeRows]]) -> Iterable[Tensor]:
        """See ``Engine``."""
        with self._spent.timed("evaluating"):
            begin("comparing", sum(len(one.wanted) for one in guesses))
            return [_guess(one) for one in guesses]


def _client(lesson: Lesson[FoldedModel, NodeRows]) -> FoldedClient:
    data, seed, local = lesson.data, lesson.seed, lesson.local
    if lesson.hyper.objective == "label-free":
        every = data.all_rows
        return FoldedClient(every, torch.zeros_like(every), seed, local=local, mix=lesson.mix)
    if not local:
        return FoldedClient(data.learn, data.labels, seed)
    return FoldedClient(data.learn, data.labels, seed, data.all_rows[~data.labelled], local=True)


@torch.no_grad()
def _guess(guess: Guess[FoldedModel, NodeRows]) -> Tensor:
    model, data = guess.model, guess.data
    vector = _vector(model, guess.vector)
    rows = data.all_rows[guess.wanted]
    if guess.by is None:
        features = model.features(data.task, rows, vector)
    else:
        features = model.features_by(data.task, rows, vector, data.all_rows[guess.by])
    logits: Tensor = guess.kept.classifier(model.head)(features)
    return logits.cpu()


def _by_own_images(exam: Exam[FoldedModel, NodeRows]) -> int:
    """Right answers with statistics of the client's own training images."""
    model, data, kind = exam.model, exam.data, head_kind(exam.kind)
    vector = _vector(model, exam.vector)
    tests = model.features_by(data.task, data.judge, vector, data.all_rows)
    head = model.head
    if exam.mix is not None:
        return exam.right(head, tests, data.judge_labels)
    if exam.head:
        head = unpack_head_for(tests, exam.head, exam.kind)
    elif not kind.kept:
        features = model.features_by(data.task, data.learn, vector, data.all_rows)
        head = kind.fit(features, data.labels.to(features.device), data.classes)
    return exam.right(head, tests, data.judge_labels)


def _vector(model: FoldedModel, vector: Vector | None) -> Tensor:
    return model.start.initial_vector if vector is None else torch.from_numpy(vector)


def _with_own(kind: str, table: Tensor, share: NodeRows) -> int:
    labels = share.labels.to(table.device)
    head = head_kind(kind).fit(_at(table, share.learn), labels, share.classes)
    return right_answers(head, _at(table, share.judge), share.judge_labels)


def _table(
    wanted: Sequence[Look[FoldedModel, NodeRows]] | Sequence[Exam[FoldedModel, NodeRows]],
) -> Tensor:
    """Features by row of the task's images; rows that none of these nodes has are undefined."""
    model, task, vector = wanted[0].model, wanted[0].data.task, wanted[0].vector
    parts = [rows for one in wanted for rows in (one.data.learn, one.data.judge)]
    rows: Tensor = torch.cat(parts).unique()
    if vector is not None:
        found = model.features(task, rows, torch.from_numpy(vector))
        table = found.new_empty(len(task.images), found.shape[1])
        table[rows.to(table.device)] = found
        return table
    # Features at the start are kept with the task.
    task.belong_to(model)
    start = model.start.initial_vector
    if task.head_only is None:
        one = model.features(task, rows[:1], start)
        task.head_only = one.new_full((len(task.images), one.shape[1]), float("nan"))
    missing = rows[task.head_only[rows.to(task.head_only.device), 0].isnan().cpu()]
    if len(missing):
        found = model.features(task, missing, start)
        task.head_only[missing.to(found.device)] = found
    return task.head_only


def _at(table: Tensor, rows: Tensor) -> Tensor:
    return table[rows.to(table.device)]
