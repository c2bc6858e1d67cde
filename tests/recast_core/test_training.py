"""Training options: sets, optimisers, and normalisation layers on a client."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn
from torchvision.models import VisionTransformer

from recast_core import RecastConfig, RecastError, RecastModel, attach, mimic
from recast_core.backbones.cifar_resnet import CifarResNet
from recast_core.fitting import fit
from recast_core.norms import load_norm, norm_state
from recast_core.recipe import Recipe

CLASSES = 3


def vit() -> nn.Module:
    torch.manual_seed(0)
    return VisionTransformer(16, 8, 2, 2, 16, 32, num_classes=5).eval()


def resnet() -> nn.Module:
    torch.manual_seed(0)
    return CifarResNet(14, 5).eval()


def attached(model: nn.Module, **options: object) -> RecastModel:
    target = "conv" if isinstance(model, CifarResNet) else "attn+mlp"
    config = RecastConfig(target, **options)  # type: ignore[arg-type]
    return attach(copy.deepcopy(model), mimic(model, config))


def data(count: int = 60, shift: float = 0.0, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Classes that differ in a pattern under noise; ``shift`` moves and stretches all images."""
    generator = torch.Generator().manual_seed(seed)
    patterns = torch.randn(CLASSES, 3, 16, 16, generator=torch.Generator().manual_seed(9))
    labels = torch.arange(count) % CLASSES
    noise = torch.randn(count, 3, 16, 16, generator=generator)
    return (0.3 * patterns[labels] + noise) * (1 + shift) + shift, labels


@pytest.mark.parametrize("make", [vit, resnet])
@pytest.mark.parametrize("sets", [2, 3])
def test_sets_under_adamw_follow_the_trajectory_of_one(make: object, sets: int) -> None:
    model = make()  # type: ignore[operator]
    images, labels = data()
    one, many = (
        fit(attached(model, sets=k), images, labels, CLASSES, Recipe(epochs=3)).coefficients
        for k in (1, sets)
    )
    assert not torch.equal(one, attached(model).bank.initial_vector)
    assert (one - many).abs().max() < 1e-4


@pytest.mark.parametrize("sets", [2, 4])
def test_sets_under_sgd_move_their_mean_at_a_kth_of_the_rate(sets: int) -> None:
    model = resnet()
    images, labels = data()
    many = fit(attached(model, sets=sets), images, labels, CLASSES, Recipe(), optimizer="sgd")
    one = fit(
        attached(model), images, labels, CLASSES, Recipe(learning_rate=1e-2 / sets), optimizer="sgd"
    )
    same = fit(attached(model), images, labels, CLASSES, Recipe(), optimizer="sgd")
    assert (one.coefficients - many.coefficients).abs().max() < 1e-5
    assert (same.coefficients - many.coefficients).abs().max() > 1e-4


def test_gradients_of_coefficients_agree_with_finite_differences() -> None:
    net = attached(vit()).double()
    images = data(4)[0].double()

    def value(flat: Tensor) -> Tensor:
        net.coefficients.flat.data = flat
        return net.features(images).square().mean()

    start = net.coefficients.flat.detach().clone()
    (found,) = torch.autograd.grad(value(start), net.coefficients.flat)
    for index in range(len(start)):
        step = torch.zeros_like(start)
        step[index] = 1e-6
        slope = (value(start + step) - value(start - step)).detach() / 2e-6
        assert float(found[index]) == pytest.approx(float(slope), rel=1e-5, abs=1e-8)


def test_frozen_normalisation_is_bit_identical_after_training() -> None:
    images, labels = data()
    net = attached(resnet())
    before = norm_state(net)
    found = fit(net, images, labels, CLASSES)
    assert found.norm == {}
    assert all(torch.equal(tensor, before[name]) for name, tensor in norm_state(net).items())


def test_affine_training_moves_scales_and_shifts_only_and_can_be_undone() -> None:
    images, labels = data()
    net = attached(resnet())
    rest = {k: v.clone() for k, v in net.backbone.state_dict().items()}
    before = norm_state(net)
    found = fit(net, images, labels, CLASSES, norm="affine")
    changed = {k for k, v in net.backbone.state_dict().items() if not torch.equal(v, rest[k])}
    assert changed == {k for k in found.norm if k.endswith(("weight", "bias"))}
    assert not any(p.requires_grad for p in net.backbone.parameters())
    load_norm(net, before)
    assert all(torch.equal(v, rest[k]) for k, v in net.backbone.state_dict().items())


def test_affine_state_gives_the_fitted_features_on_another_copy() -> None:
    images, labels = data()
    model = resnet()
    net, other = attached(model), attached(model)
    found = fit(net, images, labels, CLASSES, norm="affine")
    other.coefficients.load(found.coefficients)
    load_norm(other, found.norm)
    assert torch.equal(other.features(images), net.features(images))


def test_statistics_are_recomputed_only_where_held_out_accuracy_rises(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    images, labels = data(shift=2.0)
    for gain in (0.1, 0.0, -0.1):
        answers = iter((0.5, 0.5 + gain))
        monkeypatch.setattr(
            "recast_core.norms._accuracy", lambda *_, answers=answers: next(answers)
        )
        net = attached(resnet())
        before = norm_state(net)
        found = fit(net, images, labels, CLASSES, norm="recompute")
        same = all(torch.equal(v, before[k]) for k, v in norm_state(net).items())
        assert same == (gain <= 0) == (found.norm == {})
        assert not any(module.training for module in net.modules())


def test_recomputed_statistics_are_those_of_the_images(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = iter((0.0, 1.0))
    monkeypatch.setattr("recast_core.norms._accuracy", lambda *_: next(answers))
    images, labels = data(shift=2.0)
    net = attached(resnet())
    found = fit(net, images, labels, CLASSES, norm="recompute")
    seen = nn.functional.conv2d(images, net.backbone.get_submodule("conv1").weight, padding=1)  # type: ignore[arg-type]
    assert torch.allclose(found.norm["bn1.running_mean"], seen.mean((0, 2, 3)), atol=1e-4)
    assert torch.allclose(found.norm["bn1.running_var"], seen.var((0, 2, 3)), rtol=1e-3)


def test_options_that_do_not_exist_or_fit_are_refused() -> None:
    images, labels = data(12)
    net = attached(vit())
    for options, message in (
        ({"optimizer": "lbfgs"}, "unknown optimizer"),
        ({"norm": "melted"}, "unknown norm"),
        ({"norm": "recompute"}, "no BatchNorm statistics"),
    ):
        with pytest.raises(RecastError, match=message):
            fit(net, images, labels, CLASSES, **options)  # type: ignore[arg-type]


def test_state_of_another_backbone_is_refused() -> None:
    with pytest.raises(RecastError, match="no normalisation tensor"):
        load_norm(attached(vit()), norm_state(attached(resnet())))
