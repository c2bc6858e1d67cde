"""What does more than its class is refused by name, at mimicry and when it is attached."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, prune

from recast_core import RecastConfig, RecastError, attach, mimic
from recast_core.methods import Lora
from tests.recast_core import strangers as s

IMAGES = torch.randn(4, 3, 12, 12, generator=torch.Generator().manual_seed(0))
ROWS = torch.randn(4, 16, generator=torch.Generator().manual_seed(0))


def conv() -> nn.Conv2d:
    return nn.Conv2d(8, 8, 3, padding=1)


def of_convs(make: Callable[[], nn.Module]) -> Callable[[], nn.Module]:
    return lambda: s.Convolutions(make)


def of_linears(make: Callable[[], nn.Module]) -> Callable[[], nn.Module]:
    return lambda: s.Layers(make)


def hooked(register: str) -> Callable[[], nn.Module]:
    def make() -> nn.Module:
        layer = conv()
        getattr(layer, register)(lambda *args: None)
        return layer

    return of_convs(make)


def own_forward_of_one_layer() -> nn.Module:
    layer = nn.Linear(16, 16)
    usual = layer.forward
    layer.forward = lambda x: 2 * usual(x)  # type: ignore[method-assign]
    return layer


def two_places() -> nn.Module:
    model = s.Layers()
    model.layers[2] = model.layers[0]
    return model


def old(norm: str) -> nn.Module:
    make = getattr(torch.nn.utils, norm)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return s.Convolutions(lambda: make(conv()))


REFUSED: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "standardised weight": (of_convs(lambda: s.StandardisedConv2d(8, 8, 3, padding=1)), "forward"),
    "padding in forward": (of_convs(lambda: s.SameConv2d(8, 8, 3)), "forward"),
    "inner method": (of_convs(lambda: s.CastingConv2d(8, 8, 3, padding=1)), "forward"),
    "low-rank branch": (of_linears(lambda: s.LowRankLinear(16)), "forward"),
    "forward of one": (of_linears(own_forward_of_one_layer), "forward"),
    "call": (of_linears(lambda: s.CalledLinear(16, 16)), "forward"),
    "property": (of_linears(lambda: s.ComputedLinear(16, 16)), "computes its weight"),
    "forward hook": (hooked("register_forward_hook"), r"handle\.remove"),
    "forward pre-hook": (hooked("register_forward_pre_hook"), r"handle\.remove"),
    "backward hook": (hooked("register_full_backward_hook"), r"handle\.remove"),
    "backward pre-hook": (hooked("register_full_backward_pre_hook"), r"handle\.remove"),
    "weight_norm": (of_convs(lambda: parametrizations.weight_norm(conv())), "parametrised weight"),
    "spectral_norm": (of_convs(lambda: parametrizations.spectral_norm(conv())), "parametrised"),
    "orthogonal": (
        of_linears(lambda: parametrizations.orthogonal(nn.Linear(16, 16))), "parametrised",
    ),
    "old weight_norm": (lambda: old("weight_norm"), "remove_weight_norm"),
    "old spectral_norm": (lambda: old("spectral_norm"), "remove_spectral_norm"),
    "pruned": (of_convs(lambda: prune.l1_unstructured(conv(), "weight", 0.5)), r"prune\.remove"),
    "pruned bias": (of_convs(lambda: prune.l1_unstructured(conv(), "bias", 0.5)), r"prune\.remove"),
    "two places": (two_places, "2 places"),
}  # fmt: skip


def state(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize("case", REFUSED)
def test_a_module_that_does_more_is_refused_by_name_with_a_remedy(
    case: str, residual: bool
) -> None:
    torch.manual_seed(0)
    make, says = REFUSED[case]
    model = make().eval()
    target = "blocks.*" if isinstance(model, s.Convolutions) else "layers.*"
    config = RecastConfig((target,), residual=residual)
    with pytest.raises(RecastError, match=rf"'{target[:-1]}[0-2]'.*{says}") as caught:
        mimic(model, config)
    assert "\n" not in str(caught.value)
    # A bank made of plain modules, then attached to these.
    plain = of_convs(conv)() if target == "blocks.*" else s.Layers()
    bank = replace(mimic(plain, config), backbone="")
    before, example = state(model), IMAGES if target == "blocks.*" else ROWS
    wanted = model(example)
    with pytest.raises(RecastError, match=rf"'{target[:-1]}[0-2]'"):
        attach(model, bank)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    torch.testing.assert_close(model(example), wanted)


def test_a_method_refuses_it_too() -> None:
    with pytest.raises(RecastError, match=r"'layers\.0' \(LowRankLinear\) has a forward"):
        Lora(2, ("layers.*",)).prepare(s.Layers(lambda: s.LowRankLinear(16)))


def tied() -> nn.Module:
    model = s.Layers()
    model.layers[2].weight = model.layers[0].weight
    return model


def shared_parent() -> nn.Module:
    """A block at two places: the layer in it has one place, in the block."""
    block = nn.Sequential(nn.Linear(16, 16))
    return s.Layers(lambda: block)


class Reading(s.Layers):
    """Reads what its children hold, as Swin and PyTorch's encoder do."""

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            assert (layer.in_features, layer.out_features) == (16, 16)
            x = x + torch.tanh(nn.functional.linear(x, layer.weight, layer.bias))
        return self.fc(x)


TAKEN: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "subclass that adds nothing": (of_linears(lambda: s.RenamedLinear(16, 16)), "layers.*"),
    "tied weights": (tied, "layers.*"),
    "shared parent": (shared_parent, "layers.*"),
    "read weights": (Reading, "layers.*"),
    "norm elsewhere": (lambda: parametrized_stem(), "blocks.*"),
}


def parametrized_stem() -> nn.Module:
    model = s.Convolutions(conv)
    parametrizations.weight_norm(model.stem)
    return model


@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize("case", TAKEN)
def test_what_a_target_layer_reproduces_is_taken_trains_and_merges(
    case: str, residual: bool
) -> None:
    torch.manual_seed(0)
    make, target = TAKEN[case]
    model = make().eval().requires_grad_(False)
    example = IMAGES if target == "blocks.*" else ROWS
    wanted = model(example)
    net = attach(model, mimic(model, RecastConfig((target,), residual=residual)))
    torch.testing.assert_close(net(example), wanted)
    net(example).sum().backward()
    assert bool((net.coefficients.flat.grad != 0).all())
    net.coefficients.load(net.bank.initial_vector + 0.3)
    changed = net(example).detach()
    assert not torch.allclose(changed, wanted, atol=1e-3)
    torch.testing.assert_close(net.merge()(example), changed)


class Hidden(s.Layers):
    """Keeps a layer where no module tree shows it."""

    def __init__(self) -> None:
        super().__init__()
        self.kept = [self.layers[0]]

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x + self.kept[0](x))


@pytest.mark.parametrize("residual", [False, True])
def test_one_forward_pass_is_compared_with_the_backbone(residual: bool) -> None:
    torch.manual_seed(0)
    model = Hidden().eval()
    wanted = model(ROWS)
    bank = mimic(model, RecastConfig(("layers.*",), residual=residual))
    with pytest.raises(RecastError, match=r"does not (run|compute)"):
        attach(model, bank)
    torch.testing.assert_close(model(ROWS), wanted)
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_a_lossy_start_is_no_difference() -> None:
    torch.manual_seed(0)
    model = s.Layers().eval()
    wanted = model(ROWS)
    bank = mimic(model, RecastConfig(("layers.*",), templates=1, basis="orthonormal"))
    assert not torch.allclose(attach(model, bank)(ROWS), wanted, atol=1e-2)


class Drawing(s.Layers):
    """Dropout that evaluation mode does not switch off."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(nn.functional.dropout(x, 0.5, training=True))


def test_a_model_that_draws_at_random_is_called_that() -> None:
    model = Drawing().eval()
    bank = mimic(model, RecastConfig(("layers.*",)))
    with pytest.raises(RecastError, match=r"other logits each time .* draw nothing at random"):
        attach(model, bank)


def test_layers_of_zeros_make_no_templates() -> None:
    model = s.Layers()
    for layer in model.layers:
        nn.init.zeros_(layer.weight)
    with pytest.raises(RecastError, match=r"templates of layers\.0.* are zero.*leave it out"):
        mimic(model, RecastConfig(("layers.*",)))
    nn.init.ones_(model.layers[0].weight)
    mimic(model, RecastConfig(("layers.*",)))


def test_another_class_of_the_same_name_is_told_apart() -> None:
    qat = torch.ao.nn.qat.Linear
    config = torch.ao.quantization.get_default_qat_qconfig("x86")
    model = s.Layers(lambda: qat(16, 16, qconfig=config))
    with pytest.raises(RecastError, match=r"\(torch\.ao\.nn\.qat.*Linear\) has a forward"):
        mimic(model, RecastConfig(("layers.*",)))


def test_a_model_that_cannot_be_copied_is_told_why() -> None:
    model = s.Layers()
    model.lock = threading.Lock()  # type: ignore[assignment]
    net = attach(model, mimic(model, RecastConfig(("layers.*",))))
    with pytest.raises(RecastError, match=r"cannot be copied .*lock.*: keep locks"):
        net.copy()
