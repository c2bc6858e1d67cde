"""The engine of a client by itself."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from client.data import UNLABELLED
from client.holdings import all_labels
from client.node import OwnData
from client.turn import Engine, Exam, Guess, Lesson, Look
from recast_core.heads import head_kind
from recast_core.learner import Learned, Learner
from recast_core.pulse import begin
from recast_core.wire.head_bytes import unpack_head_for


class Alone(Engine[Learner, OwnData]):
    """Does what each client wants, one after another."""

    def train(self, lessons: Sequence[Lesson[Learner, OwnData]]) -> Iterable[Learned]:
        """See ``Engine``."""
        return [_train(one) for one in lessons]

    def features(self, looks: Sequence[Look[Learner, OwnData]]) -> Iterable[Tensor]:
        """See ``Engine``."""
        begin("looking", sum(len(one.data.images) for one in looks))
        return [
            one.model.features(
                one.data.images, one.vector, one.data.all_images if one.local else None
            )
            for one in looks
        ]

    def examine(self, exams: Sequence[Exam[Learner, OwnData]]) -> Iterable[int]:
        """See ``Engine``."""
        return [_examine(one) for one in exams]

    def guess(self, guesses: Sequence[Guess[Learner, OwnData]]) -> Iterable[Tensor]:
        """See ``Engine``."""
        return [_guess(one) for one in guesses]


def _train(lesson: Lesson[Learner, OwnData]) -> Learned:
    model, data, hyper = lesson.model, lesson.data, lesson.hyper
    if lesson.kept.head:
        model = model.keeping(lesson.kept.classifier(model.head))
    model, images, labels = model.expecting(lesson.mix), data.images, data.labels
    # Images without a label count where nobody's do, and where statistics are the client's own.
    if hyper.objective == "label-free":
        images, labels = data.all_images, torch.full_like(all_labels(data), UNLABELLED)
    elif lesson.local:
        images, labels = data.all_images, all_labels(data)
    begin("training", hyper.epochs * len(labels))
    return model.fit(
        lesson.vector, images, labels, data.classes, hyper, lesson.seed, local=lesson.local
    )


@torch.no_grad()
def _guess(guess: Guess[Learner, OwnData]) -> Tensor:
    model, images = guess.model, guess.data.all_images
    begin("comparing", len(guess.wanted))
    by = None if guess.by is None else images[guess.by]
    head = guess.kept.classifier(model.head)
    logits: Tensor = head(model.features(images[guess.wanted], guess.vector, by))
    return logits.cpu()


def _examine(exam: Exam[Learner, OwnData]) -> int:
    model, data = exam.model, exam.data
    by = data.all_images if exam.local else None
    begin("evaluating", len(data.test_images))
    tests = model.features(data.test_images, exam.vector, by)
    head = model.head
    if exam.mix is None and not head_kind(exam.kind).kept:
        if exam.head:
            head = unpack_head_for(tests, exam.head, exam.kind)
        else:
            features = model.features(data.images, exam.vector, by)
            labels = data.labels.to(features.device)
            head = head_kind(exam.kind).fit(features, labels, data.classes)
    return exam.right(head, tests, data.test_labels)
