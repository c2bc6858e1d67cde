"""Attaching: exact at the start, refused whole, merged exactly, and one client is one client."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from torchvision.models import ResNet, VisionTransformer
from torchvision.models.resnet import BasicBlock

from recast_core import RecastConfig, RecastError, RecastModel, attach, mimic
from recast_core.backbones.cifar_resnet import CifarResNet
from recast_core.layers import RecastMultiheadAttention

Maker = Callable[[], nn.Module]


def vit() -> nn.Module:
    torch.manual_seed(0)
    model = VisionTransformer(16, 8, 4, 2, 16, 32, num_classes=5)
    nn.init.normal_(model.heads.head.weight)
    return model.eval()


def resnet() -> nn.Module:
    torch.manual_seed(0)
    return ResNet(BasicBlock, [1, 3, 1, 1], num_classes=5).eval()


def cifar() -> nn.Module:
    torch.manual_seed(0)
    return CifarResNet(8, 5).eval()


BACKBONES: dict[str, tuple[Maker, str]] = {
    "vit-attn": (vit, "attn"),
    "vit-mlp": (vit, "mlp"),
    "vit-both": (vit, "attn+mlp"),
    "resnet": (resnet, "conv"),
    "cifar": (cifar, "layer?.0.conv*"),
}
FORMS = {
    "own": {"basis": "own"},
    "orthonormal": {"basis": "orthonormal"},
    "two sets": {"sets": 2},
    "residual": {"residual": True, "templates": 1},
    "residual in the bank": {"residual": True, "templates": 1, "base_in_bank": True},
}


def images(rows: int = 4) -> Tensor:
    return torch.randn(rows, 3, 16, 16, generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def logits(model: nn.Module, rows: int = 4) -> Tensor:
    return model(images(rows))


def relative(found: Tensor, wanted: Tensor) -> float:
    return float((found - wanted).norm() / wanted.norm())


def attached(make: Maker, target: str | tuple[str, ...], **form: object) -> RecastModel:
    model = make()
    return attach(model, mimic(model, RecastConfig(target, **form)))  # type: ignore[arg-type]


def shake(net: RecastModel, clients: int | None = None, scale: float = 0.3) -> Tensor:
    generator = torch.Generator().manual_seed(2)
    shape = (net.bank.sent,) if clients is None else (clients, net.bank.sent)
    vector = net.bank.initial_vector + scale * torch.randn(shape, generator=generator)
    net.coefficients.load(vector)
    return vector


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("backbone", BACKBONES)
def test_an_attached_model_starts_at_the_backbone(backbone: str, form: str) -> None:
    make, target = BACKBONES[backbone]
    wanted = logits(make())
    net = attached(make, target, **FORMS[form])
    assert relative(logits(net), wanted) < 1e-4
    shake(net)
    assert relative(logits(net), wanted) > 1e-3, "the coefficients must matter"


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("backbone", BACKBONES)
def test_a_merged_model_is_plain_and_computes_the_same(backbone: str, form: str) -> None:
    make, target = BACKBONES[backbone]
    net = attached(make, target, **FORMS[form])
    shake(net)
    wanted = logits(net)
    merged = net.merge()
    assert relative(logits(merged), wanted) < 1e-5
    plain = make()
    assert [type(m) for m in merged.modules()] == [type(m) for m in plain.modules()]
    assert merged.state_dict().keys() == plain.state_dict().keys()
    with pytest.raises(RecastError, match="merged already"):
        net.merge()


@pytest.mark.parametrize("form", FORMS)
def test_the_state_dict_holds_coefficients_and_no_templates(form: str) -> None:
    net = attached(vit, "mlp", **FORMS[form])
    state = net.state_dict()
    assert [name for name in state if "coefficients" in name] == ["coefficients.flat"]
    stacks = {tuple(group.templates.shape) for group in net.bank.groups}
    assert not stacks & {tuple(tensor.shape) for tensor in state.values()}
    frozen = sum(p.numel() for p in vit().state_dict().values())
    replaced = sum(len(g.modules) * g.templates[0].numel() for g in net.bank.groups)
    kept = frozen if net.bank.residual else frozen - replaced
    assert sum(t.numel() for t in state.values()) == kept + net.bank.trained


def test_only_the_coefficients_train() -> None:
    net = attached(vit, "attn+mlp", sets=2)
    trainable = [name for name, p in net.named_parameters() if p.requires_grad]
    assert trainable == ["coefficients.flat"]
    assert net.trainable_parameters()[0] == net.bank.trained == 2 * net.bank.sent
    assert not any(module.training for module in net.modules())
    net(images()).sum().backward()
    assert net.coefficients.flat.grad is not None
    assert bool((net.coefficients.flat.grad != 0).all())


class Holder(nn.Module):
    """Two layers of one shape after one another, so that they share two templates."""

    def __init__(self, make: Callable[[], nn.Module]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.blocks = nn.ModuleList(make() for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            if isinstance(block, nn.MultiheadAttention | RecastMultiheadAttention):
                x = block(x, x, x, need_weights=False)[0]
            else:
                x = block(x)
        return x


def conv(**options: object) -> Callable[[], nn.Module]:
    return lambda: nn.Conv2d(4, 4, 3, **options)  # type: ignore[arg-type]


FOLDED: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "linear": (lambda: nn.Linear(5, 5), (6, 5)),
    "linear of tokens": (lambda: nn.Linear(5, 5, bias=False), (6, 3, 5)),
    "conv": (conv(), (6, 4, 9, 9)),
    "conv without bias": (conv(bias=False, padding=1), (6, 4, 9, 9)),
    "conv in groups": (conv(groups=2, padding=1), (6, 4, 7, 7)),
    "conv with stride": (conv(stride=2, padding=2, dilation=2), (6, 4, 12, 12)),
    "conv same": (conv(padding="same"), (6, 4, 6, 5)),
    "conv reflecting": (conv(padding=1, padding_mode="reflect"), (6, 4, 6, 6)),
    "conv circular": (conv(padding=1, padding_mode="circular", groups=4), (6, 4, 6, 6)),
    "attention": (lambda: nn.MultiheadAttention(8, 2, batch_first=True), (6, 3, 8)),
    "attention without bias": (
        lambda: nn.MultiheadAttention(8, 2, bias=False, batch_first=True), (6, 3, 8),
    ),
}  # fmt: skip


@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize("case", FOLDED)
@torch.no_grad()
def test_a_client_axis_computes_each_client_alone(case: str, residual: bool) -> None:
    make, shape = FOLDED[case]
    net = attached(lambda: Holder(make), ("blocks.[01]",), residual=residual)
    vectors = shake(net, clients=3)
    x = torch.randn(shape, generator=torch.Generator().manual_seed(3))
    folded = net(x)
    alone = []
    for vector, rows in zip(vectors, x.chunk(3), strict=True):
        net.coefficients.load(vector)
        alone.append(net(rows))
    torch.testing.assert_close(folded, torch.cat(alone), rtol=1e-5, atol=1e-5)
    assert relative(alone[0], net.backbone(x.chunk(3)[0])) > 1e-3, "clients must differ"


@torch.no_grad()
def test_a_client_axis_of_sequence_first_attention_runs_along_the_batch() -> None:
    net = attached(lambda: Holder(lambda: nn.MultiheadAttention(8, 2)), ("blocks.[01]",))
    vectors = shake(net, clients=3)
    x = torch.randn(5, 6, 8, generator=torch.Generator().manual_seed(3))
    folded = net(x)
    alone = []
    for vector, rows in zip(vectors, x.chunk(3, dim=1), strict=True):
        net.coefficients.load(vector)
        alone.append(net(rows))
    torch.testing.assert_close(folded, torch.cat(alone, 1), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("backbone", BACKBONES)
@torch.no_grad()
def test_a_folded_backbone_is_its_clients_one_by_one(backbone: str) -> None:
    make, target = BACKBONES[backbone]
    net = attached(make, target)
    vectors = shake(net, clients=2)
    folded = logits(net)
    alone = []
    for vector, rows in zip(vectors, images().chunk(2), strict=True):
        net.coefficients.load(vector)
        alone.append(net(rows))
    assert relative(folded, torch.cat(alone)) < 1e-5
    assert relative(alone[1], alone[0]) > 1e-3


def test_rows_that_clients_cannot_share_are_refused() -> None:
    net = attached(lambda: Holder(lambda: nn.Linear(5, 5)), ("blocks.[01]",))
    shake(net, clients=4)
    with pytest.raises(ValueError, match="6 rows cannot be split over 4 clients"):
        net(torch.zeros(6, 5))
    with pytest.raises(RecastError, match="client axis"):
        net.merge()


def attention_pair(batch_first: bool) -> tuple[nn.MultiheadAttention, RecastMultiheadAttention]:
    def make() -> nn.Module:
        return Holder(lambda: nn.MultiheadAttention(8, 2, batch_first=batch_first)).eval()

    layer = attached(make, ("blocks.[01]",)).backbone.get_submodule("blocks.0")
    original = make().get_submodule("blocks.0")
    assert isinstance(layer, RecastMultiheadAttention)
    assert isinstance(original, nn.MultiheadAttention)
    return original, layer


CAUSAL = torch.ones(4, 4).triu(1).bool()
PADDING = torch.tensor([[False, False, True, True], [False, False, False, True]])
CALLS: dict[str, dict[str, object]] = {
    "plain": {"need_weights": False},
    "weights": {},
    "weights per head": {"average_attn_weights": False},
    "mask": {"attn_mask": CAUSAL, "need_weights": False},
    "float mask": {"attn_mask": torch.randn(4, 4, generator=torch.Generator().manual_seed(0))},
    "causal": {"attn_mask": CAUSAL, "is_causal": True, "need_weights": False},
    "padding": {"key_padding_mask": PADDING},
}


@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("call", CALLS)
@torch.no_grad()
def test_attention_answers_every_call_as_the_original_does(call: str, batch_first: bool) -> None:
    original, layer = attention_pair(batch_first)
    x = torch.randn(2, 4, 8, generator=torch.Generator().manual_seed(4))
    x = x if batch_first else x.transpose(0, 1)
    wanted, wanted_weights = original(x, x, x, **CALLS[call])
    found, found_weights = layer(x, x, x, **CALLS[call])
    torch.testing.assert_close(found, wanted)
    assert (found_weights is None) == (wanted_weights is None)
    if wanted_weights is not None:
        torch.testing.assert_close(found_weights, wanted_weights)


@pytest.mark.parametrize("batch_first", [True, False])
@torch.no_grad()
def test_cross_and_unbatched_attention_agree_with_the_original(batch_first: bool) -> None:
    original, layer = attention_pair(batch_first)
    generator = torch.Generator().manual_seed(4)
    query, key = (torch.randn(3, 3, 8, generator=generator) for _ in range(2))
    for args in ((query, key, key), (query[0], key[0], key[0]), (query[0],) * 3):
        for need_weights in (True, False):
            wanted = original(*args, need_weights=need_weights)
            found = layer(*args, need_weights=need_weights)
            torch.testing.assert_close(found[0], wanted[0])


def test_an_attention_and_the_projection_in_it_may_both_be_targets() -> None:
    def make() -> nn.Module:
        return Holder(lambda: nn.MultiheadAttention(8, 2, batch_first=True)).eval()

    x = torch.randn(2, 4, 8, generator=torch.Generator().manual_seed(4))
    wanted = logits_of(make(), x)
    net = attached(make, ("blocks.[01]", "blocks.*.out_proj"))
    torch.testing.assert_close(logits_of(net, x), wanted)
    shake(net)
    changed = logits_of(net, x)
    torch.testing.assert_close(logits_of(net.merge(), x), changed)


@torch.no_grad()
def logits_of(model: nn.Module, x: Tensor) -> Tensor:
    return model(x)


def test_masked_attention_refuses_a_client_axis() -> None:
    net = attached(lambda: Holder(lambda: nn.MultiheadAttention(8, 2)), ("blocks.[01]",))
    shake(net, clients=2)
    x = torch.zeros(4, 2, 8)
    with pytest.raises(ValueError, match="client axis"):
        net.backbone.get_submodule("blocks.0")(x, x, x, attn_mask=CAUSAL, need_weights=False)


def fresh(change: Callable[[nn.Module], object]) -> nn.Module:
    model = vit()
    change(model)
    return model


def widen(model: nn.Module) -> None:
    model.get_submodule("encoder.layers.encoder_layer_1.mlp").__setattr__("0", nn.Linear(16, 40))


FIRST = "encoder.layers.encoder_layer_0.mlp.0"
REFUSED: dict[str, tuple[Maker, str]] = {
    "another shape": (lambda: fresh(widen), r"layer_1\.mlp\.0\.weight has shape \[40, 16\]"),
    "another family": (cifar, rf"no module '{FIRST}'"),
    "half": (lambda: vit().half(), rf"{FIRST}\.weight is torch\.float16"),
    "meta": (lambda: vit().to("meta"), rf"{FIRST}\.weight is a meta tensor"),
    "other weights": (
        lambda: fresh(lambda m: nn.init.zeros_(m.get_submodule(FIRST).weight)),  # type: ignore[arg-type]
        "was made for backbone",
    ),
    "no weight": (
        lambda: fresh(lambda m: m.get_submodule(FIRST[:-2]).__setattr__("0", nn.Identity())),
        r"encoder_layer_0\.mlp\.0' \(Identity\) has no weight",
    ),
}  # fmt: skip


@pytest.mark.parametrize("why", REFUSED)
def test_a_backbone_that_does_not_match_is_refused_whole_naming_the_first_module(why: str) -> None:
    make, message = REFUSED[why]
    bank = mimic(vit(), RecastConfig("mlp"))
    model = make()
    modules, grads = list(model.modules()), [p.requires_grad for p in model.parameters()]
    before = {k: v.clone() for k, v in model.state_dict().items() if not v.is_meta}
    with pytest.raises(RecastError, match=message) as caught:
        attach(model, bank)
    assert "\n" not in str(caught.value)
    assert all(a is b for a, b in zip(model.modules(), modules, strict=True))
    assert [p.requires_grad for p in model.parameters()] == grads
    after = model.state_dict()
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())


def test_attaching_twice_is_refused_and_harms_nothing() -> None:
    model = vit()
    bank = mimic(model, RecastConfig("mlp"))
    net = attach(model, bank)
    wanted = logits(net)
    for again in (model, net):
        with pytest.raises(RecastError, match="attached already"):
            attach(again, bank)
    assert torch.equal(logits(net), wanted)


def test_a_residual_model_in_the_bank_needs_no_weights_of_its_own() -> None:
    wanted = logits(vit())
    bank = mimic(vit(), RecastConfig("mlp", residual=True, base_in_bank=True, templates=1))
    other = fresh(lambda m: nn.init.zeros_(m.get_submodule(FIRST).weight))  # type: ignore[arg-type]
    assert relative(logits(attach(other, replace(bank, backbone=""))), wanted) < 1e-6
