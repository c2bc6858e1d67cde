"""Gauss-Newton in one round: exact sums, counted bytes, and a step that lowers the loss."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from experiments.studies.normal_sums import Normal, normal_of, rounded, step
from experiments.studies.one_round_fleet import Fleet, NewClasses
from experiments.studies.shift_fleet import Share


@pytest.fixture(scope="module")
def fleet() -> Fleet:
    return Fleet("fog=digits[90%:]@0-2+fog:5")


def loss(fleet: Fleet, rows: torch.Tensor, labels: torch.Tensor, vector: torch.Tensor) -> float:
    fleet.net.coefficients.load(vector)
    with torch.no_grad():
        logits = fleet.net(fleet.loaded.preprocess(fleet.images[rows]))
    return float(F.cross_entropy(logits, labels, reduction="sum"))


def test_a_gradient_is_that_of_the_loss_and_a_step_lowers_it(fleet: Fleet) -> None:
    rows = torch.arange(12)
    none = torch.arange(0)
    share = Share(rows, torch.from_numpy(fleet.domain.learn[:12]), none, none, none)
    start = fleet.learner.start.initial_vector
    normal = fleet.normal(share, start)
    nudge = torch.zeros_like(start)
    nudge[3] = 1e-3
    ahead, behind = (
        loss(fleet, share.learn, share.labels, start + sign * nudge) for sign in (1, -1)
    )
    assert float(normal.gradient[3]) == pytest.approx((ahead - behind) / 2e-3, rel=0.02, abs=1e-3)
    assert bool((torch.linalg.eigvalsh(normal.matrix) > -1e-6).all())
    moved = start + step([normal], 10.0)
    before = loss(fleet, share.learn, share.labels, start)
    assert loss(fleet, share.learn, share.labels, moved) < before


def test_sums_of_new_classes_are_those_of_the_split_ridge_loss() -> None:
    fleet = NewClasses("digits[:10%]@0-2")
    [share] = fleet.shares(1, 0, validate=False)
    start = fleet.learner.start.initial_vector
    normal = fleet.normal(share, start)
    logits, labels = fleet.logits_of(share)

    def total(vector: torch.Tensor) -> float:
        with torch.no_grad():
            return float(F.cross_entropy(logits(vector), labels, reduction="sum"))

    axis = int(normal.gradient.abs().argmax())
    nudge = torch.zeros_like(start)
    nudge[axis] = 1e-2
    slope = (total(start + nudge) - total(start - nudge)) / 2e-2
    assert float(normal.gradient[axis]) == pytest.approx(slope, rel=0.05)
    assert total(start + step([normal], 1.0)) < total(start)


def test_a_class_that_cannot_be_has_no_part_in_the_sums() -> None:
    random = torch.Generator().manual_seed(0)
    logits, jacobian = (torch.randn(*shape, generator=random) for shape in ((4, 3), (4, 3, 2)))
    labels = torch.tensor([0, 1, 1, 0])
    masked = logits.clone()
    masked[:, 2] = float("-inf")
    jacobian[:, 2] = 0
    found, kept = normal_of(masked, labels, jacobian), normal_of(
        logits[:, :2], labels, jacobian[:, :2]
    )  # fmt: skip
    torch.testing.assert_close(found.gradient, kept.gradient)
    torch.testing.assert_close(found.matrix, kept.matrix)


def test_parts_add_up_and_eight_bits_keep_the_matrix_symmetric() -> None:
    random = torch.Generator().manual_seed(0)
    parts = []
    for _ in range(3):
        root = torch.randn(9, 6, generator=random, dtype=torch.float64)
        parts.append(Normal(root.sum(0), root.T @ root, 9))
    whole = Normal(sum(p.gradient for p in parts), sum(p.matrix for p in parts), 27)  # type: ignore[arg-type]
    torch.testing.assert_close(step(parts, 0.1), step([whole], 0.1))
    told, size = rounded(parts[0], 8)
    assert torch.equal(told.matrix, told.matrix.T)
    assert size == 6 + 21 + 8
    assert (told.matrix - parts[0].matrix).abs().max() <= parts[0].matrix.abs().max() / 127
