"""What answers where a classifier is kept: a client's label mix counts, and costs no byte."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from client.kept import examine, nearest
from client.turn import Exam, Guess, Look
from protos import recast_v1_pb2 as pb
from recast_core.label_mix import counted_mix
from recast_core.wire.kept_head import DEPLOYED

CLASSES, WIDTH = 3, 6
VECTOR = np.ones(2, np.float32)


def some(labels: Tensor) -> tuple[Any, Any, Any]:
    """A client with these labels, its model and its data."""
    head = nn.Linear(WIDTH, CLASSES)
    with torch.no_grad():
        head.weight.copy_(torch.eye(CLASSES, WIDTH))
        head.bias.zero_()
    data = SimpleNamespace(
        labels=labels, labelled=torch.ones(len(labels), dtype=torch.bool), classes=CLASSES,
        local_classes=len(labels.unique()), test_examples=9, origin="",
    )  # fmt: skip
    model = SimpleNamespace(head=head, start=SimpleNamespace(prefix=1))
    me = SimpleNamespace(settings=SimpleNamespace(recomputes=False), notes={})
    return me, model, data


def asked(client: tuple[Any, Any, Any], features: Tensor) -> list[Exam[Any, Any]]:
    """The exams of an evaluation, where the start has these features ``[N, d]``."""
    exams, turn = [], examine(*client, pb.Task(id=1), VECTOR, DEPLOYED)
    work: Any = next(turn)
    while True:
        told: Any = 1
        if isinstance(work, Look):
            assert work.vector is None
            told = features
        else:
            exams.append(work)
        try:
            work = turn.send(told)
        except StopIteration:
            return exams


def apart(labels: Tensor, noise: float, *, place: int) -> Tensor:
    """Features ``[N, d]`` that tell classes apart from ``place`` on."""
    torch.manual_seed(0)
    features = noise * torch.randn(len(labels), WIDTH)
    features[torch.arange(len(labels)), place + labels] += 4
    return features


@pytest.fixture
def labels() -> Tensor:
    return torch.arange(30) % CLASSES


def test_the_label_mix_counts_everywhere_but_in_the_network_as_deployed(labels: Tensor) -> None:
    known = apart(labels, 0.1, place=0)
    deployed, statistics, local, answer = asked(some(labels), known)
    assert (deployed.kind, deployed.mix, deployed.vector) == ("backbone", None, None)
    for exam in (statistics, answer):
        assert exam.kind == "backbone"
        assert exam.mix is not None
        torch.testing.assert_close(exam.mix, counted_mix(labels, CLASSES))
    assert (local.kind, local.mix) == ("local", None)
    assert answer.vector is VECTOR


@pytest.mark.parametrize("lost", [False, True])
def test_a_head_of_the_client_s_own_answers_where_the_classifier_is_lost(
    labels: Tensor, lost: bool
) -> None:
    # The classifier reads the first features alone; a head of the client's own reads all.
    answer = asked(some(labels), apart(labels, 0.1, place=CLASSES * lost))[-1]
    assert (answer.kind, answer.vector is VECTOR) == ("local" if lost else "backbone", True)


def test_what_the_label_mix_makes_right_needs_no_head_of_the_client_s_own() -> None:
    labels = torch.tensor([0] * 28 + [1] * 2)
    blind = torch.zeros(len(labels), WIDTH)
    assert asked(some(labels), blind)[-1].kind == "backbone"


def test_without_labels_there_is_no_label_mix() -> None:
    none = torch.zeros(0, dtype=torch.int64)
    exams = asked(some(none), torch.zeros(0, WIDTH))
    assert [exam.mix for exam in exams] == [None, None]
    assert [exam.vector for exam in exams] == [None, VECTOR]


def begun(client: tuple[Any, Any, Any], found: dict[int, Tensor]) -> int:
    """Where a client begins that sees these logits ``[N, C]`` with each vector, of 0 the task's."""
    _, model, data = client
    vectors = {number: np.full(2, number, np.float32) for number in found}
    turn = nearest(model, data, vectors, DEPLOYED, local=False)
    work: Any = next(turn)
    while True:
        assert isinstance(work, Guess)
        assert work.by is None
        assert work.vector is not None
        try:
            work = turn.send(found[int(work.vector[0])][work.wanted])
        except StopIteration as ended:
            return int(ended.value)


def sure_of(labels: Tensor, *how: float) -> Tensor:
    """Logits ``[N, C]`` of what is right, by how much each image is; the last is of the rest."""
    logits = torch.zeros(len(labels), CLASSES)
    each = torch.tensor([*how, *[how[-1]] * (len(labels) - len(how))])
    logits[torch.arange(len(labels)), labels] = each
    return logits


def test_a_client_begins_at_an_earlier_task_where_all_its_images_fit_better(labels: Tensor) -> None:
    plain, better, best = (sure_of(labels, how) for how in (0.0, 1.0, 2.0))
    assert begun(some(labels), {0: plain, 4: better, 7: best, 9: better}) == 7
    assert begun(some(labels), {0: best, 4: better, 7: plain}) == 0


def test_of_equals_and_by_one_image_it_begins_where_the_task_does(labels: Tensor) -> None:
    same, one = sure_of(labels, 1.0), labels[:1]
    assert begun(some(labels), {0: same, 4: same.clone()}) == 0
    assert begun(some(one), {0: sure_of(one, 0.0), 4: sure_of(one, 3.0)}) == 0


def test_a_few_images_that_happen_to_fit_better_are_no_reason(labels: Tensor) -> None:
    """The mean loss is lower, by less than two standard errors of it over the images."""
    plain, lucky = sure_of(labels, 0.0), sure_of(labels, 4.0, -0.2, -0.2, -0.2, 0.0)
    assert F.cross_entropy(lucky, labels) < F.cross_entropy(plain, labels)
    assert begun(some(labels), {0: plain, 4: lucky}) == 0


def test_without_labels_it_is_sureness_that_must_be_clear(labels: Tensor) -> None:
    client = some(labels[:0])
    client[2].labelled = torch.zeros(len(labels), dtype=torch.bool)
    sure, unsure = sure_of(labels, 5.0), sure_of(labels, 0.0)
    assert begun(client, {0: unsure, 4: sure}) == 4
    assert begun(client, {0: sure, 4: unsure}) == 0
