"""Frozen statistics stay frozen in any mode; who owns them says so."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from recast_core import RecastConfig, RecastModel, attach, mimic
from recast_core.backbones.cifar_resnet import CifarResNet
from recast_core.frozen import batch_statistics
from recast_core.methods import parse_method

IMAGES = torch.randn(8, 3, 12, 12, generator=torch.Generator().manual_seed(0))


def cifar() -> nn.Module:
    torch.manual_seed(0)
    model = CifarResNet(8, 4)
    with torch.no_grad():
        for _ in range(2):
            model.train()(IMAGES.mul(2).add(1))
    return model.eval()


def normed() -> nn.Module:
    """Statistics of several kinds, none of them in a target."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1),
        nn.InstanceNorm2d(4, affine=True, track_running_stats=True),
        parametrizations.spectral_norm(nn.Conv2d(4, 4, 3)),
        nn.SyncBatchNorm(4),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.BatchNorm1d(4),
        nn.Linear(4, 4),
        nn.Linear(4, 3),
    ).eval()


def attached(model: nn.Module, target: str) -> RecastModel:
    return attach(model, mimic(model, RecastConfig((target,))))


NETS = {"cifar": (cifar, "layer?.0.conv*"), "norms": (normed, "7")}


def buffers(model: nn.Module) -> dict[str, Tensor]:
    return {name: buffer.clone() for name, buffer in model.named_buffers()}


@pytest.mark.parametrize("through", ["net", "backbone", "layers"])
@pytest.mark.parametrize("case", NETS)
def test_training_in_training_mode_cannot_move_another_task(case: str, through: str) -> None:
    make, target = NETS[case]
    net = attached(make(), target)
    with torch.no_grad():
        wanted = net(IMAGES)
    before = buffers(net)
    optimizer = torch.optim.SGD([net.coefficients.flat], lr=0.1)
    for step in range(3):
        if through == "layers":
            for module in net.modules():
                module.training = True
        else:
            (net if through == "net" else net.backbone).train()
        optimizer.zero_grad()
        net(3 * IMAGES + step).square().mean().backward()
        optimizer.step()
    assert all(torch.equal(buffer, before[name]) for name, buffer in net.named_buffers())
    net.coefficients.load()
    with torch.no_grad():
        assert torch.equal(net(IMAGES), wanted)


@pytest.mark.parametrize("case", NETS)
def test_a_copy_is_frozen_too_and_a_merged_model_is_not(case: str) -> None:
    make, target = NETS[case]
    net = copy.deepcopy(attached(make(), target)).train()
    before = buffers(net)
    net(IMAGES)
    assert all(torch.equal(buffer, before[name]) for name, buffer in net.named_buffers())
    merged = net.merge().train()
    assert not any(module._forward_pre_hooks for module in merged.modules())
    before = buffers(merged)
    merged(IMAGES)
    assert any(not torch.equal(buffer, before[name]) for name, buffer in merged.named_buffers())


@pytest.mark.parametrize("method", ["head", "norm-affine", "full"])
def test_a_method_without_a_bank_freezes_them_as_well(method: str) -> None:
    model = parse_method(method).prepare(cifar()).train()
    before = buffers(model)
    model(IMAGES)
    assert all(torch.equal(buffer, before[name]) for name, buffer in model.named_buffers())


def test_who_owns_the_statistics_trains_with_those_of_the_batch() -> None:
    net = attached(cifar(), "layer?.0.conv*")
    frozen, before = net(IMAGES), buffers(net)
    with batch_statistics(net.backbone):
        assert not torch.allclose(net(IMAGES), frozen, atol=1e-3)
    changed = {n for n, buffer in net.named_buffers() if not torch.equal(buffer, before[n])}
    assert {name.rpartition(".")[2] for name in changed} == {
        "running_mean", "running_var", "num_batches_tracked",
    }  # fmt: skip
    before = buffers(net.train())
    net(IMAGES)
    assert all(torch.equal(buffer, before[name]) for name, buffer in net.named_buffers())
