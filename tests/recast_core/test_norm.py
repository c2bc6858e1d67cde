"""Normalisation target layers compute what the plain layers would with the combined tensors."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from recast_core import RecastError, TemplateBank, TemplateGroup, attach
from recast_core.layers import RecastBatchNorm2d, RecastLayerNorm

TENSORS = ("weight", "bias", "running_mean", "running_var")


def batch_norm() -> nn.Module:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    model[1].running_mean.normal_()
    model[1].running_var.uniform_(0.5, 2)
    nn.init.normal_(model[1].weight)
    return model.eval()


def layer_norm() -> nn.Module:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 6), nn.LayerNorm(6))
    nn.init.normal_(model[1].weight)
    return model.eval()


def bank_for(
    model: nn.Module, tensors: tuple[str, ...], residual: bool = True, scale: float = 0.1
) -> TemplateBank:
    """Two templates for each tensor, one row for all; without the residual form, exact at c0."""
    groups = []
    for tensor in tensors:
        own = getattr(model[1], tensor).detach()  # type: ignore[index]
        random = scale * torch.randn(2, *own.shape)
        templates = random if residual else torch.stack([own, random[0]])
        groups.append(TemplateGroup(f"1.{tensor}", ("1",), tensor, (0,), templates))
    start = torch.zeros(2) if residual else torch.tensor([1.0, 0.0])
    return TemplateBank(tuple(groups), (start,), residual=residual)


def plainly(model: nn.Module, bank: TemplateBank, vector: Tensor) -> nn.Module:
    """The plain model with the combination written in by hand."""
    plain = copy.deepcopy(model)
    with torch.no_grad():
        for group in bank.groups:
            tensor = getattr(plain[1], group.tensor)  # type: ignore[index]
            combined = (vector @ group.templates).clamp_min(
                -float("inf") if group.tensor != "running_var" or bank.residual else 0.0
            )
            tensor.copy_((tensor if bank.residual else 0) + combined)
            if group.tensor == "running_var":
                tensor.clamp_min_(0)
    return plain


CASES = [
    (batch_norm, tensors, (4, 3, 7, 7))
    for tensors in (("weight",), ("bias",), TENSORS[2:], TENSORS, ("running_mean",))
] + [(layer_norm, tensors, (4, 2, 5)) for tensors in (("weight",), ("bias",), TENSORS[:2])]


@pytest.mark.parametrize(("make", "tensors", "shape"), CASES)
@pytest.mark.parametrize("residual", [True, False])
def test_target_layer_equals_the_plain_layer_alone_folded_and_merged(
    make: object, tensors: tuple[str, ...], shape: tuple[int, ...], residual: bool
) -> None:
    model = make()  # type: ignore[operator]
    bank = bank_for(model, tensors, residual)
    net = attach(copy.deepcopy(model), bank)
    assert isinstance(net.backbone[1], RecastBatchNorm2d | RecastLayerNorm)  # type: ignore[index]
    x = torch.randn(*shape)
    vectors = bank.initial_vector + torch.tensor([[0.0, 0.0], [0.4, -0.7], [-0.2, 0.3]])
    expected = [plainly(model, bank, vector)(x) for vector in vectors]
    assert torch.allclose(net.features(x), model(x), atol=1e-5)
    for vector, wanted in zip(vectors, expected, strict=True):
        net.coefficients.load(vector)
        assert torch.allclose(net.features(x), wanted, atol=1e-5)
    net.coefficients.load(vectors)
    assert torch.allclose(net.features(torch.cat([x] * 3)), torch.cat(expected), atol=1e-5)
    net.coefficients.load(vectors[1])
    merged = net.merge()
    assert type(merged[1]) is type(model[1])  # type: ignore[index]
    assert merged.state_dict().keys() == model.state_dict().keys()
    assert torch.allclose(merged(x), expected[1], atol=1e-5)


@pytest.mark.parametrize(("make", "tensors", "shape"), [CASES[3], CASES[-1]])
def test_gradients_of_coefficients_agree_with_finite_differences(
    make: object, tensors: tuple[str, ...], shape: tuple[int, ...]
) -> None:
    model = make()  # type: ignore[operator]
    net = attach(model, bank_for(model, tensors)).double()
    x = torch.randn(*shape, dtype=torch.float64)
    weights = torch.randn_like(net.features(x))

    def value(flat: Tensor) -> Tensor:
        net.coefficients.flat.data = flat
        return (net.features(x) * weights).sum()

    start = torch.tensor([0.1, -0.2], dtype=torch.float64)
    (found,) = torch.autograd.grad(value(start), net.coefficients.flat)
    for index, step in enumerate(1e-6 * torch.eye(2, dtype=torch.float64)):
        slope = (value(start + step) - value(start - step)).detach() / 2e-6
        assert float(found[index]) == pytest.approx(float(slope), rel=1e-6, abs=1e-6)


def test_a_variance_pushed_below_zero_stays_finite() -> None:
    model = batch_norm()
    bank = bank_for(model, ("running_var",), scale=1.0)
    net = attach(model, bank)
    net.coefficients.load(torch.tensor([50.0, -50.0]))
    assert bool(torch.isfinite(net(torch.randn(2, 3, 5, 5))).all())
    assert float(net.merge()[1].running_var.min()) >= 0  # type: ignore[index]


def test_training_mode_does_not_touch_the_statistics() -> None:
    model = batch_norm()
    net = attach(model, bank_for(model, ("weight",)))
    before = net.backbone[1].original.running_mean.clone()  # type: ignore[index]
    net.train()
    net(torch.randn(4, 3, 5, 5))
    assert torch.equal(net.backbone[1].original.running_mean, before)  # type: ignore[index]


def test_batch_norm_without_running_statistics_is_refused() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, track_running_stats=False))
    bank = bank_for(model, ("weight",))
    with pytest.raises(RecastError, match="track_running_stats"):
        attach(model, bank)
