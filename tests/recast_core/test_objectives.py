"""Objectives that keep the deployed classifier: what counts, what is refused, when it collapsed."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recast_core import RecastError
from recast_core.objectives import (
    OBJECTIVES,
    Batch,
    CrossEntropy,
    LabelFree,
    SplitRidge,
    collapsed,
    objective_of,
    outputs_of,
)

CLASSES, WIDTH = 3, 5


def head() -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(WIDTH, CLASSES)


def batch(labels: Tensor, real: Tensor) -> Batch:
    return Batch(labels, labels.clamp_min(0), real, CLASSES)


def test_only_images_with_a_label_count_and_padding_never_does() -> None:
    features = torch.randn(2, 4, WIDTH)
    features[0, 3] = float("nan")
    labels = torch.tensor([[0, -1, 2, 1], [1, 1, -1, -1]])
    real = torch.tensor([[True, True, True, False], [True, True, True, True]])
    kept = CrossEntropy(head())
    found = kept.losses(features.requires_grad_(True), batch(labels, real))
    wanted = F.cross_entropy(kept.head(features[0, [0, 2]]), torch.tensor([0, 2]))
    torch.testing.assert_close(found[0], wanted)
    torch.testing.assert_close(kept.loss(features[1], labels[1]), found[1])
    found.sum().backward()
    assert features.grad is not None
    assert bool(torch.isfinite(features.grad).all())
    assert not features.grad[0, 1].any()


def test_a_batch_without_labels_teaches_the_label_free_objective_alone() -> None:
    labels = torch.full((1, 4), -1)
    shown = batch(labels, torch.ones(1, 4, dtype=torch.bool))
    assert CrossEntropy(head()).teaches(shown).tolist() == [False]
    assert CrossEntropy(head()).loss(torch.randn(4, WIDTH), labels[0]) is None
    assert LabelFree(head()).teaches(shown).tolist() == [True]


def test_sure_and_diverse_predictions_are_lowest() -> None:
    objective = LabelFree(nn.Identity())
    real = torch.ones(1, 3, dtype=torch.bool)
    shown = batch(torch.full((1, 3), -1), real)

    def loss(logits: list[list[float]]) -> float:
        return float(objective.losses(torch.tensor([logits], dtype=torch.float32), shown))

    diverse = loss([[20, 0, 0], [0, 20, 0], [0, 0, 20]])
    one_class = loss([[20, 0, 0]] * 3)
    unsure = loss([[0, 0, 0]] * 3)
    assert diverse < one_class
    assert diverse < unsure
    assert one_class == pytest.approx(0, abs=1e-3)


def test_the_kept_classifier_does_not_train() -> None:
    for name in OBJECTIVES[1:]:
        objective = objective_of(name, own := head(), CLASSES)
        assert objective.trained == []
        assert not own.weight.requires_grad
    assert isinstance(objective_of("split-ridge", head(), 7), SplitRidge)


@pytest.mark.parametrize(
    ("labels", "complaint"),
    [([-1, -1], "no labelled images"), ([0, 3], "a label of 3 and a classifier of 3 classes")],
)
def test_labels_that_the_classifier_does_not_know_are_refused(
    labels: list[int], complaint: str
) -> None:
    with pytest.raises(RecastError, match=complaint):
        CrossEntropy(head()).check(torch.tensor(labels))


def test_predictions_have_collapsed_where_half_of_their_diversity_is_gone() -> None:
    before = torch.arange(100) % 10
    assert not collapsed(before, before.flip(0))
    assert not collapsed(before, torch.arange(100) % 6)
    assert collapsed(before, torch.arange(100) % 4)
    assert collapsed(before, torch.zeros(100, dtype=torch.int64))
    assert not collapsed(torch.zeros(100, dtype=torch.int64), torch.zeros(100, dtype=torch.int64))


def test_the_classes_of_a_classifier_are_its_last_linears_outputs() -> None:
    assert outputs_of(nn.Sequential(nn.Linear(5, 9), nn.ReLU(), nn.Linear(9, 4))) == 4
    assert outputs_of(nn.Identity()) is None
