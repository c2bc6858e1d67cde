"""Frozen statistics stay frozen in any mode; who owns them says so."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from recast_core import RecastConfig, RecastError, RecastModel, attach, mimic
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


class Parent(nn.Module):
    """Writes the statistics of a child that it never calls."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.BatchNorm2d(16)

    def forward(self, x: Tensor) -> Tensor:
        own = self.inner
        return nn.functional.batch_norm(
            x, own.running_mean, own.running_var, own.weight, own.bias, self.training
        )


class Attribute(nn.Module):
    """Keeps a mean where no buffer is, and remembers what it saw last, which computes nothing."""

    def __init__(self, always: bool = False, moves: bool = True) -> None:
        super().__init__()
        self.mean, self.always, self.moves = torch.zeros(16), always, moves

    def forward(self, x: Tensor) -> Tensor:
        self.last = x.detach()
        if self.moves and (self.training or self.always):
            self.mean = 0.9 * self.mean + 0.1 * x.detach().mean((0, 2, 3))
        return x - self.mean[:, None, None]


class Frozen(nn.Module):
    """Keeps a mean in a parameter that does not train."""

    def __init__(self) -> None:
        super().__init__()
        self.mean = nn.Parameter(torch.zeros(16), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            self.mean.data = 0.9 * self.mean.data + 0.1 * x.detach().mean((0, 2, 3))
        return x - self.mean[:, None, None]


class Counting(nn.Module):
    """Keeps a number in an attribute of its own, or a mean in a mapping or a list."""

    def __init__(self, place: str) -> None:
        super().__init__()
        self.count, self.kept, self.means = 0, {"mean": torch.zeros(16)}, [0.0]
        self.place = place

    def forward(self, x: Tensor) -> Tensor:
        if self.training and self.place == "number":
            self.count += 1
        if self.training and self.place == "mapping":
            self.kept["mean"] = 0.9 * self.kept["mean"] + 0.1 * x.detach().mean((0, 2, 3))
        if self.training and self.place == "list":
            self.means[0] = 0.9 * self.means[0] + 0.1 * float(x.mean())
        return (x - self.kept["mean"][:, None, None] - self.means[0]) / (1 + self.count)


HIDDEN = [0]


class Outside(nn.Module):
    """Counts in what no module holds."""

    def forward(self, x: Tensor) -> Tensor:
        HIDDEN[0] += int(self.training)
        return x / (1 + HIDDEN[0])


class Writing(nn.Module):
    """Writes its buffer in every mode."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(16))

    def forward(self, x: Tensor) -> Tensor:
        self.mean.mul_(0.9).add_(0.1 * x.detach().mean((0, 2, 3)))  # type: ignore[operator]
        return x - self.mean[:, None, None]  # type: ignore[index]


def with_layer(layer: nn.Module) -> nn.Module:
    model = cifar()
    model.bn1 = nn.Sequential(model.bn1, layer, nn.Dropout(0.5))
    return model.eval()


@pytest.mark.parametrize(
    "layer",
    [
        Parent,
        Attribute,
        Frozen,
        *(partial(Counting, place) for place in ("number", "mapping", "list")),
    ],
)
def test_statistics_that_no_module_holds_in_a_buffer_of_its_own_are_frozen_too(
    layer: Callable[[], nn.Module],
) -> None:
    model = with_layer(layer())
    state = torch.random.get_rng_state()
    net = attached(model, "layer?.0.conv*")
    assert torch.equal(torch.random.get_rng_state(), state)
    wanted = net(IMAGES)
    for step in range(3):
        net.train()(3 * IMAGES + step)
    assert net.backbone.bn1[2].training, "only what writes is frozen"
    assert torch.equal(net.eval()(IMAGES), wanted)
    merged = net.train().merge()
    assert not merged.training
    assert not any(module._forward_pre_hooks for module in merged.modules())
    assert torch.equal(merged(IMAGES), wanted)


def test_statistics_that_move_in_every_mode_are_refused() -> None:
    model = with_layer(Attribute(always=True))
    bank = mimic(model, RecastConfig(("layer?.0.conv*",)))
    with pytest.raises(RecastError, match=r"module 'bn1\.1' writes what it computes with"):
        attach(model, bank)
    assert not any(module._forward_pre_hooks for module in model.modules())


def test_what_is_counted_outside_and_what_is_written_in_every_mode_is_refused() -> None:
    with pytest.raises(RecastError, match="by what none of its modules holds"):
        attached(with_layer(Outside()), "layer?.0.conv*")
    with pytest.raises(RecastError, match=r"writes .* whenever|other logits each time"):
        attached(with_layer(Writing()), "layer?.0.conv*")


def test_what_is_only_remembered_freezes_nothing() -> None:
    net = attached(with_layer(Attribute(moves=False)), "layer?.0.conv*")
    assert not net.backbone.bn1[1]._forward_pre_hooks


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
