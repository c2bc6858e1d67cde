"""The classifier is the last Linear whose output is the network's, whatever it is called."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision import models

from recast_core import RecastConfig, RecastError, TaskLibrary, attach, fit, mimic
from recast_core.classifier import find_head, locate_head
from recast_core.methods import parse_method
from tests.recast_core import strangers as s

ROWS = torch.randn(12, 16, generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(12) % 4


class Ends(nn.Module):
    """Layers whose end is written by the test."""

    def __init__(self, end: Callable[[Ends, Tensor], object], **layers: nn.Module) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(16, 16) for _ in range(2))
        for name, layer in layers.items():
            self.add_module(name, layer)
        self._end = end

    def forward(self, x: Tensor) -> object:
        for layer in self.layers:
            x = x + torch.tanh(layer(x))
        return self._end(self, x)


class Dynamic(s.Layers):
    """Control flow on values, which a symbolic trace cannot follow."""

    def forward(self, x: Tensor) -> Tensor:
        if float(x.sum()) > 1e9:
            return x
        return super().forward(x)


class Output(NamedTuple):
    """What a model of more than one result may return."""

    logits: Tensor
    features: Tensor


def linear(width: int = 3) -> nn.Linear:
    return nn.Linear(16, width)


FOUND: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "another name": (lambda: Ends(lambda m, x: m.out(x), out=linear()), "out"),
    "hidden fc": (
        lambda: Ends(
            lambda m, x: m.classifier(torch.relu(m.fc(x))), fc=linear(16), classifier=linear()
        ),
        "classifier",
    ),
    "head before fc": (
        lambda: Ends(lambda m, x: m.fc(m.head(x)), head=linear(16), fc=linear()), "fc",
    ),
    "registered first": (
        lambda: Ends(lambda m, x: m.a(torch.relu(m.b(x))), a=linear(), b=linear(16)), "a",
    ),
    "parallel": (lambda: nn.DataParallel(s.Layers()), "module.fc"),
    "compiled": (lambda: torch.compile(s.Layers()), "_orig_mod.fc"),  # type: ignore[dict-item, return-value]
    "parallel and dynamic": (lambda: nn.DataParallel(Dynamic()), "module.fc"),
    "within a sequence": (lambda: nn.Sequential(nn.Identity(), s.Layers()), "1.fc"),
    "dropout after it": (
        lambda: Ends(lambda m, x: m.drop(m.out(x)), out=linear(), drop=nn.Dropout()), "out",
    ),
    "mapping": (
        lambda: Ends(lambda m, x: {"features": x, "logits": m.out(x)}, out=linear()), "out",
    ),
    "named tuple": (lambda: Ends(lambda m, x: Output(m.out(x), x), out=linear()), "out"),
    "tuple of one": (lambda: Ends(lambda m, x: (m.out(x),), out=linear()), "out"),
    "dynamic": (Dynamic, "fc"),
    "whole classifier": (
        lambda: Ends(
            lambda m, x: m.classifier(x),
            classifier=nn.Sequential(nn.Dropout(), linear(8), nn.ReLU(), nn.Linear(8, 3)),
        ),
        "classifier",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", FOUND)
def test_the_classifier_is_found_trained_before_and_given_the_right_classes(case: str) -> None:
    torch.manual_seed(0)
    make, name = FOUND[case]
    model = make().requires_grad_(False)
    assert find_head(model) == name
    prefix = name.rpartition(".")[0]
    target = f"{prefix}.layers.*" if prefix else "layers.*"
    bank = mimic(model, RecastConfig((target,)))
    net = attach(model, bank)
    assert net.features(ROWS).shape == (12, 16)
    found = fit(net, ROWS, LABELS, 4, epochs=1)
    assert found.head.weight.shape == (4, 16)
    tasks = TaskLibrary(bank)
    tasks.add("four", found.coefficients, found.head)
    tasks.activate(net, "four")
    wanted = net(ROWS).detach()
    assert wanted.shape == (12, 4)
    if "compiled" not in case:
        assert logits(tasks.export(net, "four")(ROWS)).shape == (12, 4)
        torch.testing.assert_close(logits(net.merge()(ROWS)), wanted)


def logits(output: object) -> Tensor:
    if isinstance(output, dict):
        output = output["logits"]
    return output[0] if isinstance(output, tuple) else output  # type: ignore[return-value]


REFUSED: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "log_softmax": (lambda: Ends(lambda m, x: F.log_softmax(m.out(x), 1), out=linear()), "softmax"),
    "softmax module": (
        lambda: Ends(lambda m, x: m.p(m.out(x)), out=linear(), p=nn.Softmax(1)), "Softmax",
    ),
    "two heads": (
        lambda: Ends(lambda m, x: (m.a(x) + m.b(x)) / 2, a=linear(), b=linear()), "truediv",
    ),
    "several": (lambda: Ends(lambda m, x: (m.a(x), m.b(x)), a=linear(), b=linear()), "tensors"),
    "convolution": (
        lambda: nn.Sequential(
            nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        ),
        "AdaptiveAvgPool2d",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_no_classifier_is_refused_whoever_asks(case: str) -> None:
    make, says = REFUSED[case]
    model = make().eval()
    target = "1" if isinstance(model, nn.Sequential) else "layers.*"
    target = "[0]" if target == "1" else target
    bank = mimic(model, RecastConfig((target,)))
    with pytest.raises(RecastError, match=rf"no classifier that could be found.*{says}") as caught:
        attach(model, bank)
    assert "\n" not in str(caught.value)
    with pytest.raises(RecastError, match="no classifier"):
        parse_method("head").prepare(make())


def test_a_model_of_features_is_attached_where_that_is_said_and_merges_with_its_head() -> None:
    model = Ends(lambda m, x: x * 1.0).eval()
    bank = mimic(model, RecastConfig(("layers.*",)))
    net = attach(model, bank, head="")
    found = fit(net, ROWS, LABELS, 4, epochs=1)
    tasks = TaskLibrary(bank)
    tasks.add("four", found.coefficients, found.head)
    tasks.activate(net, "four")
    wanted = net(ROWS).detach()
    assert wanted.shape == (12, 4)
    torch.testing.assert_close(tasks.export(net, "four")(ROWS), wanted)
    torch.testing.assert_close(net.merge()(ROWS), wanted)


def test_a_head_that_is_not_there_or_not_at_the_end_is_refused() -> None:
    model = Ends(lambda m, x: m.out(torch.relu(m.hidden(x))), hidden=linear(16), out=linear())
    bank = mimic(model, RecastConfig(("layers.*",)))
    with pytest.raises(RecastError, match="no module 'fc'"):
        attach(model, bank, head="fc")
    with pytest.raises(RecastError, match=r"does not (run|compute)"):
        attach(model, bank, head="hidden")
    assert attach(model, bank, head="out")(ROWS).shape == (12, 3)


def test_an_example_helps_where_no_input_can_be_guessed() -> None:
    class Odd(Dynamic):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x["rows"])  # type: ignore[call-overload, no-any-return]

    class Strict(Dynamic):
        def forward(self, x: Tensor) -> Tensor:
            assert x.shape[1:] == (7, 16)
            return super().forward(x).mean(1)

    assert "neither traced nor run" in locate_head(Odd()).why
    model = Strict().eval()
    bank = mimic(model, RecastConfig(("layers.*",)))
    with pytest.raises(RecastError, match="neither traced nor run"):
        attach(model, bank)
    assert attach(model, bank, head="fc", example=torch.randn(2, 7, 16))._head_name == "fc"


@pytest.mark.parametrize(
    ("name", "head", "width"),
    [
        ("resnet18", "fc", 512),
        ("vgg11", "classifier", 25088),
        ("mobilenet_v2", "classifier", 1280),
        ("convnext_tiny", "classifier.2", 768),
        ("swin_t", "head", 768),
        ("densenet121", "classifier", 1024),
    ],
)
def test_torchvisions_are_found_and_their_features_are_rows(
    name: str, head: str, width: int
) -> None:
    model = models.get_model(name, weights=None)
    assert find_head(model) == head
    opened = parse_method("head").prepare(model)
    with torch.no_grad():
        assert opened.features(torch.zeros(1, 3, 64, 64)).shape == (1, width)


def test_looking_leaves_no_trace() -> None:
    class Remembers(s.Layers):
        def forward(self, x: Tensor) -> Tensor:
            self.last = x
            return super().forward(x)

    model = Remembers().train()
    attributes = {name: dict(m.__dict__) for name, m in model.named_modules()}
    assert find_head(model) == "fc"
    assert {name: dict(m.__dict__) for name, m in model.named_modules()} == attributes
    assert model.training
