"""What answers where a classifier is kept: a client's label mix counts, and costs no byte."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from client.kept import examine
from client.turn import Exam, Look
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
