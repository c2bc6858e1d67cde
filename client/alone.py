"""The engine of a client by itself."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from torch import Tensor

from client.node import OwnData
from client.turn import Engine, Exam, Lesson, Look
from recast_core.heads import head_kind, right_answers
from recast_core.learner import Learner
from recast_core.wire.codec import Vector
from recast_core.wire.head_bytes import unpack_head_for


class Alone(Engine[Learner, OwnData]):
    """Does what each client wants, one after another."""

    def train(self, lessons: Sequence[Lesson[Learner, OwnData]]) -> Iterable[Vector]:
        """See ``Engine``."""
        return [
            one.model.fit(
                one.vector,
                one.data.images,
                one.data.labels,
                one.data.classes,
                one.hyper,
                one.seed,
            )
            for one in lessons
        ]

    def features(self, looks: Sequence[Look[Learner, OwnData]]) -> Iterable[Tensor]:
        """See ``Engine``."""
        return [one.model.features(one.data.images, one.vector) for one in looks]

    def examine(self, exams: Sequence[Exam[Learner, OwnData]]) -> Iterable[int]:
        """See ``Engine``."""
        return [_examine(one) for one in exams]


def _examine(exam: Exam[Learner, OwnData]) -> int:
    model, data = exam.model, exam.data
    tests = model.features(data.test_images, exam.vector)
    if exam.head:
        head = unpack_head_for(tests, exam.head, exam.kind)
    else:
        features = model.features(data.images, exam.vector)
        labels = data.labels.to(features.device)
        head = head_kind(exam.kind).fit(features, labels, data.classes)
    return right_answers(head, tests, data.test_labels)
