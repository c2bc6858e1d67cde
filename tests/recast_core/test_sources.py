"""Task vectors: zero is the backbone, a unit vector is a source, rows are shared by blocks."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn
from torchvision.models import VisionTransformer

from recast_core import RecastConfig, RecastError, TemplateBank, attach
from recast_core.backbones.cifar_resnet import CifarResNet
from recast_core.sources.task_vectors import low_rank, task_vector_bank


def resnet() -> nn.Module:
    torch.manual_seed(0)
    return CifarResNet(14, 5).eval()


def vit() -> nn.Module:
    torch.manual_seed(0)
    model = VisionTransformer(16, 8, 4, 2, 16, 32, num_classes=5)
    nn.init.normal_(model.heads.head.weight)
    return model.eval()


def tuned(model: nn.Module, seed: int) -> nn.Module:
    """What fine-tuning of everything but the head would have changed."""
    other = copy.deepcopy(model)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in other.state_dict().items():
            if tensor.is_floating_point() and not name.startswith(("linear", "heads")):
                tensor.add_(
                    0.05 * tensor.abs().mean() * torch.rand(tensor.shape, generator=generator)
                )
    return other


def images(rows: int = 3) -> Tensor:
    return torch.randn(rows, 3, 16, 16, generator=torch.Generator().manual_seed(3))


def everything(model: nn.Module) -> RecastConfig:
    """Targets that cover all weights of the CIFAR ResNet but the classifier's."""
    return RecastConfig(("*conv?",))


@pytest.mark.parametrize("share", ["group", "block", "stage", "model"])
@pytest.mark.parametrize("make", [resnet, vit])
@torch.no_grad()
def test_the_start_is_the_backbone(make: object, share: str) -> None:
    model = make()  # type: ignore[operator]
    target = "conv" if isinstance(model, CifarResNet) else "attn+mlp"
    bank = task_vector_bank(
        model,
        [tuned(model, s) for s in range(3)],
        RecastConfig(target),
        share=share,  # type: ignore[arg-type]
    )
    expected = model(images())
    found = attach(model, TemplateBank.from_bytes(bank.to_bytes()))(images())
    assert (found - expected).abs().max() <= 1e-4 * expected.abs().max()


@torch.no_grad()
def test_a_unit_vector_is_its_source_normalisation_included() -> None:
    model = resnet()
    sources = [tuned(model, seed) for seed in (1, 2, 3)]
    expected = sources[1](images())
    assert (expected - model(images())).abs().max() > 0.01 * expected.abs().max()
    bank = task_vector_bank(
        model, [sources[0], sources[1].state_dict(), sources[2]], everything(model)
    )
    net = attach(model, bank)
    net.coefficients.load(torch.tensor([0.0, 1.0, 0.0]).repeat(bank.sent // 3))
    assert (net(images()) - expected).abs().max() <= 1e-4 * expected.abs().max()
    assert (net.merge()(images()) - expected).abs().max() <= 1e-4 * expected.abs().max()


@pytest.mark.parametrize(
    ("share", "rows"), [("group", 6), ("block", 6), ("stage", 3), ("model", 1)]
)
def test_what_shares_a_row_has_one_coefficient_for_each_source(share: str, rows: int) -> None:
    model = CifarResNet(20, 5)
    bank = task_vector_bank(
        model,
        [tuned(model, 1), tuned(model, 2)],
        RecastConfig("conv"),
        share=share,  # type: ignore[arg-type]
    )
    assert bank.sent == 2 * rows
    norms = {g.modules[0] for g in bank.groups if g.tensor == "running_var"}
    assert norms == {n for n, m in model.named_modules() if isinstance(m, nn.BatchNorm2d)}


def test_a_block_moves_its_own_normalisation() -> None:
    model = vit()
    bank = task_vector_bank(model, [tuned(model, 1)], RecastConfig("attn+mlp"))
    assert bank.sent == 4
    for group in bank.groups:
        name = group.modules[0]
        if "encoder_layer_" in name:
            assert group.rows == (int(name.split("encoder_layer_")[1][0]),)
        else:
            assert name == "encoder.ln"
            assert group.rows == (3,)


def test_folded_clients_equal_single_ones() -> None:
    model = resnet()
    bank = task_vector_bank(model, [tuned(model, 1), tuned(model, 2)], everything(model))
    net = attach(model, bank)
    vectors = torch.randn(3, bank.sent)
    alone = []
    for vector in vectors:
        net.coefficients.load(vector)
        alone.append(net(images()))
    net.coefficients.load(vectors)
    folded = net(images().repeat(3, 1, 1, 1))
    expected = torch.cat(alone)
    assert (folded - expected).abs().max() <= 1e-4 * expected.abs().max()


def test_normalisation_can_be_left_out() -> None:
    model = resnet()
    bank = task_vector_bank(model, [tuned(model, 1)], RecastConfig("conv"), norms=False)
    assert {group.tensor for group in bank.groups} == {"weight"}


def test_low_rank_is_the_truncated_singular_value_decomposition() -> None:
    deltas = torch.randn(2, 6, 4, 3, 3)
    kept = low_rank(deltas, 2)
    assert torch.linalg.matrix_rank(kept.flatten(2), rtol=1e-4).tolist() == [2, 2]
    left = (deltas - kept).flatten(2).double().square().sum((1, 2))
    values = torch.linalg.svdvals(deltas.flatten(2).double())
    assert torch.allclose(left, values[:, 2:].square().sum(1), rtol=1e-4)
    model = resnet()
    bank = task_vector_bank(model, [tuned(model, 1)], RecastConfig("conv"), rank=1)
    for group in bank.groups:
        if group.tensor == "weight" and group.templates.dim() > 2:
            assert int(torch.linalg.matrix_rank(group.templates[0].flatten(1), rtol=1e-4)) == 1


def test_sources_of_another_network_are_refused() -> None:
    model, config = resnet(), RecastConfig("conv")
    with pytest.raises(RecastError, match="at least one"):
        task_vector_bank(model, [], config)
    with pytest.raises(RecastError, match="source 0 has no tensor"):
        task_vector_bank(model, [vit()], config)
    wrong = {**model.state_dict(), "layer1.1.conv1.weight": torch.zeros(2, 2)}
    with pytest.raises(RecastError, match=r"source 1 has shape \[2, 2\]"):
        task_vector_bank(model, [model, wrong], config)
    wrong["layer1.1.conv1.weight"] = torch.full((16, 16, 3, 3), float("nan"))
    with pytest.raises(RecastError, match="source 0 holds NaN"):
        task_vector_bank(model, [wrong], config)
