"""Mimicry: every source starts at the backbone where it says so, and is as near as it can be."""

from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torchvision.models import VisionTransformer

from experiments.command.source_quality import compare_sources
from recast_core import RecastConfig, TemplateBank, attach, mimic
from recast_core.backbones.cifar_resnet import CifarResNet
from recast_core.mimicry import relative_error, seeded_bank
from recast_core.sources import Gradient, Vae
from recast_core.sources.closed_form import closed_form
from tests.examples import examples


def vit() -> nn.Module:
    torch.manual_seed(0)
    model = VisionTransformer(16, 8, 4, 2, 16, 32, num_classes=5)
    nn.init.normal_(model.heads.head.weight)
    return model.eval()


def resnet() -> nn.Module:
    torch.manual_seed(0)
    model = CifarResNet(20, 5)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)  # type: ignore[union-attr]
            module.running_var.uniform_(0.5, 2)  # type: ignore[union-attr]
    return model.eval()


def logit_error(model: nn.Module, bank: TemplateBank) -> float:
    images = torch.randn(3, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected, found = model(images), attach(copy.deepcopy(model), bank)(images)
    return float((found - expected).abs().max() / expected.abs().max())


@pytest.mark.parametrize(("make", "target"), [(vit, "attn+mlp"), (resnet, "conv")])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"basis": "orthonormal"},
        {"residual": True},
        {"residual": True, "templates": 1},
        {"residual": True, "templates": 1, "basis": "orthonormal"},
        {"residual": True, "templates": 1, "base_in_bank": True},
        {"residual": True, "source": "seeded", "templates": 3},
        {"residual": True, "source": "gradient"},
        {"residual": True, "source": "vae", "templates": 1},
        {"sets": 3},
    ],
    ids=str,
)
def test_exact_banks_give_the_logits_of_the_backbone(
    make: object, target: str, options: dict[str, object]
) -> None:
    model = make()  # type: ignore[operator]
    config = RecastConfig(target, **options)  # type: ignore[arg-type]
    quick = {"gradient": Gradient(steps=5), "vae": Vae(steps=5)}.get(config.source)
    assert logit_error(model, mimic(model, config, quick)) <= 1e-4


@pytest.mark.parametrize("source", [Gradient(), Gradient(sets=2), Vae()], ids=str)
def test_iterative_sources_reach_a_hundredth_at_one_template_per_layer(source: object) -> None:
    model = vit()
    error, cosine = relative_error(
        model,
        mimic(model, RecastConfig("mlp"), source),  # type: ignore[arg-type]
    )
    assert error <= 1e-2
    assert cosine >= 0.9999


@examples(30)
@given(st.integers(2, 7), st.integers(1, 7), st.integers(8, 200), st.integers(0, 2**31))
def test_closed_form_is_the_best_approximation_of_its_rank(
    layers: int, count: int, size: int, seed: int
) -> None:
    count = min(count, layers)
    weights = torch.randn(layers, size, generator=torch.Generator().manual_seed(seed))
    templates, coefficients = closed_form(weights, count, "orthonormal")
    error = (coefficients.double() @ templates.double() - weights.double()).square().sum()
    values = torch.linalg.svdvals(weights.double())
    assert float(error) == pytest.approx(
        float(values[count:].square().sum()), rel=1e-4, abs=1e-10 * float(values.square().sum())
    )


def test_gradient_descent_is_never_nearer_than_the_closed_form() -> None:
    model = resnet()
    config = RecastConfig("conv", templates=1, basis="orthonormal")
    optimum, descent = compare_sources(
        model, config, ("closed-form", "gradient"), sources={"gradient": Gradient(steps=300)}
    )
    assert 0.1 < optimum.relative_error <= descent.relative_error * (1 + 1e-6)
    assert descent.relative_error <= 1.1 * optimum.relative_error


def test_groups_of_equal_layers_do_not_blow_up_noise() -> None:
    weights = torch.randn(1, 30).expand(4, 30).clone()
    templates, coefficients = closed_form(weights, 4, "orthonormal")
    assert torch.allclose(coefficients @ templates, weights, atol=1e-5)
    assert float(templates[1:].abs().max()) == 0.0


def test_a_seed_gives_the_same_bank_again_and_another_seed_another() -> None:
    model, config = resnet(), RecastConfig("conv", templates=2)
    first, again, other = (seeded_bank(model, config, seed) for seed in (5, 5, 2**64 - 1))
    assert first.sha256 == again.sha256 != other.sha256


def test_seeded_templates_have_the_layers_norm_and_are_nearly_orthogonal() -> None:
    model = resnet()
    bank = seeded_bank(model, RecastConfig("conv", templates=3), 1)
    for group in bank.groups:
        layers = torch.stack([model.get_submodule(m).weight for m in group.modules])
        wanted = layers.flatten(1).square().sum(1).mean().sqrt()
        flat = group.templates.flatten(1)
        assert torch.allclose(flat.norm(dim=1), wanted.expand(3), rtol=1e-3)
        assert torch.corrcoef(flat).fill_diagonal_(0).abs().max() < 0.1


# The first word of Philox4x64-10 for key (0, 0) and counter 1, least significant bit first.
PHILOX = f"{0x02F4BA6408E4D89B:064b}"[::-1]


def test_seeded_signs_are_those_of_philox() -> None:
    model = nn.Sequential(nn.Linear(8, 8, bias=False), nn.Linear(8, 2))
    with torch.no_grad():
        model[0].weight.fill_(0.5)
    bank = seeded_bank(model, RecastConfig(("0",)), 0)
    bits = "".join("1" if v > 0 else "0" for v in bank.groups[0].templates.flatten().tolist())
    assert bits == PHILOX
    assert float(bank.groups[0].templates.abs().min()) == 0.5


def test_comparison_has_a_cosine_for_each_target_module() -> None:
    model = vit()
    rows = compare_sources(
        model,
        RecastConfig("attn+mlp"),
        ("closed-form", "gradient", "seeded"),
        torch.randn(4, 3, 16, 16),
        {"gradient": Gradient(steps=20)},
    )
    exact, rough, seeded = rows
    assert len(exact.feature_cosine) == 12
    assert min(exact.feature_cosine.values()) > 1 - 1e-6
    assert min(rough.feature_cosine.values()) < 0.999
    assert exact.logit_error is not None
    assert exact.logit_error <= 1e-4
    assert seeded.relative_error == 0.0
    assert all(row.seconds > 0 for row in rows)


def test_the_model_is_not_changed() -> None:
    model = vit()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    images: Tensor = torch.randn(2, 3, 16, 16)
    compare_sources(model, RecastConfig("mlp"), ("closed-form", "seeded"), images)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
