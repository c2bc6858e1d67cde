"""The ridge head is the solution of its normal equations, with the penalty that leaves out best."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from recast_core.heads.ridge import PENALTIES, ridge_head


def data(
    count: int, width: int, classes: int = 3, seed: int = 0, noise: float = 1.0
) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % classes
    centres = torch.randn(classes, width, generator=generator)
    return centres[labels] + noise * torch.randn(count, width, generator=generator) + 3, labels


def solve(x: Tensor, y: Tensor, penalty: float) -> tuple[Tensor, Tensor]:
    """Weight ``[d, C]`` and intercept by the normal equations, the intercept unpenalised."""
    mean_x, mean_y = x.mean(0), y.mean(0)
    centred = x - mean_x
    gram = centred.T @ centred + penalty * torch.eye(x.shape[1], dtype=x.dtype)
    weight = torch.linalg.solve(gram, centred.T @ (y - mean_y))
    return weight, mean_y - mean_x @ weight


def reference(features: Tensor, labels: Tensor, classes: int) -> tuple[Tensor, Tensor, float]:
    """The head of the penalty with the least squared error when each image is left out once."""
    x = features.double()
    y = torch.nn.functional.one_hot(labels, classes).double()
    power = float((x - x.mean(0)).square().sum(1).mean())
    errors = []
    for penalty in PENALTIES:
        squared = 0.0
        for out in range(len(x)):
            rest = torch.arange(len(x)) != out
            weight, bias = solve(x[rest], y[rest], penalty * power)
            squared += float((y[out] - x[out] @ weight - bias).square().sum())
        errors.append(squared)
    best = PENALTIES[errors.index(min(errors))]
    return *solve(x, y, best * power), best


@pytest.mark.parametrize(("count", "width"), [(24, 6), (9, 20), (12, 12)])
@pytest.mark.parametrize("noise", [0.05, 1.0, 5.0])
def test_the_head_solves_the_normal_equations_of_the_best_penalty(
    count: int, width: int, noise: float
) -> None:
    features, labels = data(count, width, noise=noise)
    weight, bias, _ = reference(features, labels, 3)
    head = ridge_head(features, labels, 3)
    torch.testing.assert_close(head.weight, weight.T.float(), rtol=1e-3, atol=1e-5)
    torch.testing.assert_close(head.bias, bias.float(), rtol=1e-3, atol=1e-4)


def test_noise_decides_the_penalty() -> None:
    chosen = {noise: reference(*data(30, 20, noise=noise), 3)[2] for noise in (0.05, 5.0)}
    assert chosen[0.05] < chosen[5.0], "otherwise the test above sees one penalty only"


@given(st.sets(st.integers(0, 6), min_size=2, max_size=5), st.integers(0, 100))
def test_classes_without_examples_are_never_predicted(present: set[int], seed: int) -> None:
    features, columns = data(20, 4, len(present), seed)
    labels = torch.tensor(sorted(present))[columns]
    head = ridge_head(features, labels, 7)
    probes = 1000 * torch.randn(200, 4, generator=torch.Generator().manual_seed(seed))
    for x in (features, probes):
        assert set(head(x).argmax(1).tolist()) <= present
    scores, absent = head(features), sorted(set(range(7)) - present)
    assert scores[:, absent].max() < scores[:, sorted(present)].min()


@pytest.mark.parametrize("seed", range(3))
def test_few_and_many_images_for_the_width_agree(seed: int) -> None:
    features, labels = data(20, 5, seed=seed)
    wide = torch.cat([features, torch.zeros(20, 40)], dim=1)  # columns that say nothing
    narrow_head, wide_head = ridge_head(features, labels, 3), ridge_head(wide, labels, 3)
    torch.testing.assert_close(wide_head.weight[:, :5], narrow_head.weight, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(wide_head.bias, narrow_head.bias, rtol=1e-4, atol=1e-5)
    assert not wide_head.weight[:, 5:].abs().max() > 1e-6


def test_the_scale_of_features_does_not_change_what_is_predicted() -> None:
    features, labels = data(20, 5)
    probes, _ = data(50, 5, seed=9)
    for scale in (1e-3, 1e3):
        scaled = ridge_head(scale * features, labels, 3)(scale * probes)
        torch.testing.assert_close(
            scaled, ridge_head(features, labels, 3)(probes), rtol=1e-3, atol=1e-4
        )


@pytest.mark.parametrize("features", [torch.zeros(4, 3), torch.ones(1, 3), torch.ones(2, 1)])
def test_degenerate_features_give_a_finite_head(features: Tensor) -> None:
    head = ridge_head(features, torch.arange(len(features)) % 2, 4)
    assert bool(torch.isfinite(head.weight).all())
    assert bool(torch.isfinite(head.bias).all())
    assert head(features).argmax(1).max() < 2
