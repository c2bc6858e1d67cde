"""Fused units compute what the layers compute, and company changes not one bit of it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torchvision.models import resnet18

from recast_core import RecastConfig, RecastModel, attach, mimic
from recast_core.backbones import load_backbone
from recast_core.backbones.cifar_resnet import CifarResNet
from recast_core.banks import load_bank
from recast_core.folded import BankFold, FoldedClient, How, ImageStore, train
from recast_core.folded import unit as unit_module
from recast_core.folded.bank_fold import by_batch
from recast_core.folded.chain import chain_of
from recast_core.folded.grouped import Form, convolve, gather, scatter, steady
from recast_core.folded.split import split_model
from recast_core.objectives import Batch, CrossEntropy
from recast_core.recipe import Recipe
from recast_core.statistics import own_statistics

CPU = torch.device("cpu")
CONVS = RecastConfig(("layer?.*.conv*",), residual=True)


def lively(model: nn.Module) -> nn.Module:
    """Norms that do something."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)  # type: ignore[union-attr]
            module.running_var.uniform_(0.5, 1.5)  # type: ignore[union-attr]
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, 0, 0.1)
    return model


def cifar() -> RecastModel:
    torch.manual_seed(0)
    model = lively(CifarResNet(8, 4))
    return attach(model, mimic(model, CONVS))


def torchvision() -> RecastModel:
    """Downsampling convolutions, a pooling before and an adaptive one behind."""
    torch.manual_seed(0)
    model = lively(resnet18(num_classes=4))
    config = RecastConfig(("layer1.*.conv*", "layer2.0.conv1"), residual=True)
    return attach(model, mimic(model, config))


def packaged() -> RecastModel:
    """Convolutions and norms are targets, from the first layer on."""
    loaded = load_backbone("digits_resnet20")
    net = attach(loaded.model, load_bank("digits_resnet20"), loaded.head)
    net.statistics = own_statistics(net.backbone)
    return net


NETS: dict[str, tuple[Callable[[], RecastModel], int]] = {
    "cifar": (cifar, 8), "torchvision": (torchvision, 32), "packaged": (packaged, 16),
}  # fmt: skip


def batch_of(real: Tensor, local: Tensor | None = None) -> Batch:
    labels = torch.zeros(real.shape, dtype=torch.int64)
    return Batch(labels, labels, real, 1, local)


@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize("local", [False, True])
def test_features_and_gradients_are_those_of_the_layers(name: str, local: bool) -> None:
    build, size = NETS[name]
    net = build()
    if local and net.statistics is None:
        net.statistics = own_statistics(net.backbone)
    # In float64, where no rounding puts a ReLU on its other side.
    model = split_model(net, size)
    net.double()
    chain = chain_of(model, {})
    assert chain is not None
    clients, images = 3, 5
    generator = torch.Generator().manual_seed(1)
    pixels = torch.randn(clients * images, 3, size, size, generator=generator).double()
    inputs = pixels if model.prefix is None else model.prefix(pixels)
    real = torch.ones(clients, images, dtype=torch.bool)
    real[:, 2] = False
    moved = 0.05 * torch.randn(clients, net.bank.sent, generator=generator)
    start = net.bank.initial_vector.double() + moved
    batch = batch_of(real, torch.ones(clients, dtype=torch.bool) if local else None)
    found = []
    for fused in (False, True):
        flat = nn.Parameter(start.clone())
        net.coefficients.flat = flat
        if fused:
            features = chain.features(inputs, batch)
            assert features is not None
            assert not features[:, 2].any()
        else:
            with by_batch(net.statistics, batch):
                features = model.suffix(inputs).view(clients, images, -1)
        features = features * real.unsqueeze(-1)
        weights = torch.linspace(0.5, 1.5, features.numel()).view_as(features)
        (gradient,) = torch.autograd.grad((features * weights).square().sum(), flat)
        found.append((features.detach(), gradient))
    (plain, slope), (fused_plain, fused_slope) = found
    torch.testing.assert_close(fused_plain, plain, rtol=1e-9, atol=1e-12)
    assert float((fused_slope - slope).norm() / slope.norm()) < 1e-8
    assert float(slope.abs().amin(0).max()) > 0


@pytest.mark.parametrize("local", [False, True])
def test_in_half_precision_features_and_gradients_are_about_those(local: bool) -> None:
    net = packaged()
    torch.manual_seed(1)
    inputs, flags = torch.randn(2 * 4, 3, 16, 16), torch.full((2,), local)
    batch = batch_of(torch.ones(2, 4, dtype=torch.bool), flags)
    split = split_model(net, 16)
    seen: list[torch.dtype] = []
    convolution = unit_module.convolve

    def watched(x: Tensor, *rest: object) -> Tensor:
        seen.append(x.dtype)
        return convolution(x, *rest)  # type: ignore[arg-type]

    found = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(unit_module, "convolve", watched)
        for half in (False, True):
            fold = BankFold(split, half)
            with fold.training():
                own = fold.variables(fold.spread(fold.start, 2))
                features = fold._chain.features(inputs, batch)  # type: ignore[union-attr]
                (gradient,) = torch.autograd.grad(features.square().sum(), own)
            assert features.dtype == gradient.dtype == torch.float32
            found.append((features.detach(), gradient))
    assert set(seen) == {torch.float32, torch.bfloat16}
    for one, other in zip(*found, strict=True):
        assert 0 < float((one - other).norm() / one.norm()) < 0.15


@pytest.mark.parametrize("local", [False, True])
def test_on_a_cpu_company_changes_not_one_bit(local: bool) -> None:
    net = packaged()
    model = split_model(net, 16)
    objective = CrossEntropy(net.own_head)
    sizes = (17, 17, 17, 8, 8)
    generator = torch.Generator().manual_seed(2)
    pixels = torch.randn(sum(sizes), 3, 16, 16, generator=generator)
    labels = torch.arange(sum(sizes)) % 10
    rows = torch.arange(sum(sizes)).split(sizes)
    recipe = Recipe(2, 16, 0.1)
    store = ImageStore(pixels, lambda x: x, model.prefix, CPU)
    clients = [
        FoldedClient(part, labels[part], seed, local=local) for seed, part in enumerate(rows)
    ]

    def trained(*who: FoldedClient, workers: int = 0) -> Tensor:
        how = How(workers=workers)
        return train(BankFold(model), store, who, objective, recipe, how=how).coefficients

    together = trained(*clients, workers=1)
    assert torch.equal(together, torch.cat([trained(one) for one in clients]))
    assert torch.equal(together[1:3], trained(clients[1], clients[2]))
    assert float((together[0] - together[1]).abs().max()) > 1e-3


@pytest.mark.parametrize("channels", [(16, 16, 1), (16, 32, 2), (32, 32, 1), (3, 16, 1), (8, 8, 1)])
def test_each_group_is_what_its_client_computes_alone(channels: tuple[int, int, int]) -> None:
    before, after, stride = channels
    clients, images, side = 3, 4, 8
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(clients * images, before, side, side, generator=generator)
    weight = torch.randn(clients * after, 3, 3, before, generator=generator)
    bias = torch.randn(clients * after, generator=generator)
    form = Form((stride, stride), (1, 1), (1, 1), relu=True)
    assert steady(gather(x, clients), weight, form, clients)

    def results(who: list[int]) -> list[Tensor]:
        mine = [
            torch.cat([t.chunk(clients)[i] for i in who]).requires_grad_()
            for t in (x, weight, bias)
        ]
        own, kernel, shift = mine
        out = convolve(gather(own, len(who)), kernel, shift, None, form, len(who))
        rows = out.flatten(2).movedim(2, 0).flatten(0, 1)
        flat = scatter(rows, len(who))
        return [flat, *torch.autograd.grad(flat.square().sum(), mine)]

    every = results([0, 1, 2])
    for client in range(clients):
        for whole, own in zip(every, results([client]), strict=True):
            assert torch.equal(whole.chunk(clients)[client], own)
    image = nn.functional.conv2d(
        x[:images], weight[:after].movedim(-1, 1), bias[:after], stride, 1
    ).relu()
    expected = image.flatten(2).permute(2, 0, 1).flatten(0, 1)
    torch.testing.assert_close(every[0].chunk(clients)[0], expected, rtol=1e-4, atol=1e-4)


def test_clients_of_different_kinds_are_each_what_they_are_alone() -> None:
    net = packaged()
    chain = chain_of(split_model(net, 16), {})
    assert chain is not None
    start = net.bank.initial_vector
    rows = start + 0.05 * torch.randn(4, len(start), generator=torch.Generator().manual_seed(4))
    inputs = torch.randn(4, 6, 3, 16, 16, generator=torch.Generator().manual_seed(5))
    real = torch.ones(4, 6, dtype=torch.bool)
    real[1, 2] = real[2] = False
    local = torch.tensor([True, True, False, False])

    def results(who: list[int]) -> list[Tensor]:
        flat = nn.Parameter(rows[who].clone())
        net.coefficients.flat = flat
        shown = inputs[who].flatten(0, 1)
        found = chain.features(shown, batch_of(real[who], local[who]))
        assert found is not None
        (slope,) = torch.autograd.grad(found.square().sum(), flat)
        return [found.detach(), slope]

    features, slopes = results([0, 1, 2, 3])
    assert not features[1, 2].any()
    assert not features[2].any()
    assert not slopes[2].any()
    for client in range(4):
        alone, slope = results([client])
        assert torch.equal(alone[0], features[client])
        assert torch.equal(slope[0], slopes[client])


def test_where_bits_would_hang_on_company_the_layers_do_it(monkeypatch: pytest.MonkeyPatch) -> None:
    net = cifar()
    model = split_model(net, 8)
    monkeypatch.setattr(unit_module, "steady", lambda *given: False)
    chain = chain_of(model, {})
    assert chain is not None
    assert model.prefix is not None
    inputs = model.prefix(torch.zeros(2, 3, 8, 8))
    net.coefficients.flat = nn.Parameter(net.bank.initial_vector.expand(1, -1).clone())
    assert chain.features(inputs, batch_of(torch.ones(1, 2, dtype=torch.bool))) is None


def _grouped(model: nn.Module) -> nn.Module:
    model.layer2[0].conv1 = nn.Conv2d(16, 32, 3, 2, 1, groups=2, bias=False)  # type: ignore[index, union-attr]
    return model


def _hooked(model: nn.Module) -> nn.Module:
    model.get_submodule("layer3.0.bn1").register_forward_hook(lambda *given: None)
    return model


def _silu(model: nn.Module) -> nn.Module:
    return nn.Sequential(model, nn.SiLU())


@pytest.mark.parametrize("change", [_grouped, _hooked, _silu])
def test_what_no_unit_computes_is_left_to_the_layers(
    change: Callable[[nn.Module], nn.Module],
) -> None:
    torch.manual_seed(0)
    model = change(CifarResNet(8, 4))
    inner = "0." if change is _silu else ""
    config = RecastConfig((f"{inner}layer1.0.conv*",), residual=True)
    net = attach(model, mimic(model, config), "" if change is _silu else None)
    assert chain_of(split_model(net, 8), {}) is None


def test_a_hook_of_any_module_is_run() -> None:
    net = torchvision()
    net.get_submodule("backbone.layer4.0.relu").register_forward_hook(lambda *given: None)
    assert chain_of(split_model(net, 32), {}) is None


def test_a_unit_leaves_what_several_read_as_it_is() -> None:
    class Shared(nn.Module):
        """A convolution that a norm and a sum read: the norm cannot be part of its weight."""

        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Conv2d(3, 16, 3, padding=1)
            self.second = nn.Conv2d(16, 16, 3, padding=1)
            self.third = nn.Conv2d(16, 16, 3, padding=1)
            self.fc = nn.Linear(16, 4)

        def forward(self, x: Tensor) -> Tensor:
            x = self.second(self.first(x))
            x = torch.relu(x) + self.third(x) + x
            out: Tensor = self.fc(torch.relu(x).mean((2, 3)))
            return out

    torch.manual_seed(0)
    backbone = Shared()
    net = attach(backbone, mimic(backbone, RecastConfig(("second", "third"), residual=True)))
    model = split_model(net, 8)
    chain = chain_of(model, {})
    assert chain is not None
    assert model.prefix is not None
    inputs = model.prefix(torch.randn(4, 3, 8, 8)).detach()
    net.coefficients.flat = nn.Parameter(net.bank.initial_vector.expand(2, -1) + 0.1)
    found = chain.features(inputs, batch_of(torch.ones(2, 2, dtype=torch.bool)))
    assert found is not None
    torch.testing.assert_close(found.flatten(0, 1), model.suffix(inputs), rtol=1e-4, atol=1e-5)


def test_copies_are_fused_without_tracing_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tracing patches every module, also under the feet of other threads that train."""
    fold = BankFold(split_model(packaged(), 16))
    assert fold.model.prefix is None  # the suffix is the network itself, and no graph

    def refused(*_: object) -> None:
        raise AssertionError("traced after the model was divided")

    monkeypatch.setattr("torch.fx.Tracer.trace", refused)
    assert fold.copy()._chain is not None
