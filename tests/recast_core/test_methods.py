"""Methods: identity at the start, exact counts, and what is sent determines the model."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torchvision.models import VisionTransformer, resnet18, resnet34

from recast_core import (
    RecastConfig,
    RecastError,
    RecastModel,
    TemplateBank,
    TemplateGroup,
    attach,
    mimic,
)
from recast_core.layers import TargetLayer
from recast_core.methods import (
    METHODS,
    AdaptFormer,
    Clr,
    Full,
    Lora,
    LoraXs,
    Method,
    MethodModel,
    NormAffine,
    NormGroups,
    Piggyback,
    Recast,
    TinyLora,
    Vera,
    method,
    train,
)
from recast_core.objectives import CrossEntropy, SplitRidge
from recast_core.recipe import Recipe


def vit() -> nn.Module:
    torch.manual_seed(0)
    model = VisionTransformer(16, 8, 3, 2, 16, 32, num_classes=7)
    nn.init.normal_(model.heads.head.weight)
    return model.eval()


def resnet() -> nn.Module:
    torch.manual_seed(0)
    return resnet18(num_classes=7).eval()


def images(rows: int = 4) -> Tensor:
    return torch.randn(rows, 3, 16, 16, generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def logits(model: nn.Module) -> Tensor:
    return model(images())


Maker = Callable[[], nn.Module]
ALONE: dict[str, tuple[Maker, Method]] = {
    "norm-vit": (vit, NormAffine()),
    "norm-resnet": (resnet, NormAffine()),
    "lora-attn": (vit, Lora(2)),
    "lora-mlp": (vit, Lora(2, "mlp")),
    "lora-conv": (resnet, Lora(2, "conv")),
    "lora-xs-attn": (vit, LoraXs(2)),
    "lora-xs-conv": (resnet, LoraXs(3, "conv")),
    "vera-attn": (vit, Vera(4)),
    "vera-conv": (resnet, Vera(4, "conv")),
    "tiny-lora-mlp": (vit, TinyLora(3, 2, "mlp")),
    "tiny-lora-conv": (resnet, TinyLora(4, 3, "conv")),
    "norm-groups-vit": (vit, NormGroups(3)),
    "norm-groups-resnet": (resnet, NormGroups(4)),
    "adaptformer": (vit, AdaptFormer(4)),
    "piggyback-vit": (vit, Piggyback()),
    "piggyback-resnet": (resnet, Piggyback()),
    "clr": (resnet, Clr()),
    "full": (vit, Full()),
}
MERGE_CHANGES_NOTHING_BUT_WEIGHTS = [n for n in ALONE if n not in ("adaptformer", "clr")]


def on_recast(make: Maker, target: str, residual: bool = False) -> RecastModel:
    model = make()
    return attach(model, mimic(model, RecastConfig(target=target, residual=residual)))


def prepared(case: str, recast: bool) -> tuple[MethodModel, Tensor]:
    make, chosen = ALONE[case]
    wanted = logits(make())
    if not recast:
        return chosen.prepare(make()), wanted
    return chosen.prepare(on_recast(make, "attn+mlp" if make is vit else "conv")), wanted


def shake(model: MethodModel, scale: float = 0.05) -> None:
    """Move everything trainable, as training would."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in model.trainable().values():
            parameter += scale * torch.randn(parameter.shape, generator=generator)


WITH_AND_WITHOUT = [
    (case, recast) for case in ALONE for recast in (False, True) if (case, recast) != ("full", True)
]


@pytest.mark.parametrize(("case", "recast"), WITH_AND_WITHOUT)
def test_a_method_starts_as_the_backbone(case: str, recast: bool) -> None:
    model, wanted = prepared(case, recast)
    torch.testing.assert_close(logits(model), wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("case", "recast"), WITH_AND_WITHOUT)
def test_every_trainable_parameter_gets_a_gradient_and_no_other_does(
    case: str, recast: bool
) -> None:
    model, _ = prepared(case, recast)
    shake(model, 1e-3)
    model.features(images()).square().sum().backward()
    trained = model.trainable()
    assert trained
    for name, parameter in trained.items():
        assert parameter.grad is not None, name
        assert bool(parameter.grad.abs().sum() > 0), name
    chosen = {id(p) for p in trained.values()}
    assert all(p.grad is None for p in model.parameters() if id(p) not in chosen)


@pytest.mark.parametrize(("case", "recast"), WITH_AND_WITHOUT)
def test_what_is_sent_determines_the_model(case: str, recast: bool) -> None:
    sender, _ = prepared(case, recast)
    receiver, start = prepared(case, recast)
    shake(sender)
    wanted = logits(sender)
    assert not torch.allclose(wanted, start, atol=1e-3)
    content = sender.encode()
    assert len(content) == sender.sent_bytes
    vector = receiver.decode(content)
    assert vector.dtype == torch.float32
    assert vector.shape == (sender.sent_count,)
    assert torch.equal(vector, sender.sent_vector())
    receiver.load_vector(vector)
    torch.testing.assert_close(logits(receiver), wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("case", "recast"), WITH_AND_WITHOUT)
def test_merging_keeps_the_logits_and_leaves_no_layer_of_ours(case: str, recast: bool) -> None:
    model, _ = prepared(case, recast)
    shake(model)
    wanted = logits(model)
    merged = model.merge()
    torch.testing.assert_close(logits(merged), wanted, rtol=1e-4, atol=1e-4)
    assert not any(isinstance(m, TargetLayer | RecastModel) for m in merged.modules())
    if case in MERGE_CHANGES_NOTHING_BUT_WEIGHTS:
        assert merged.state_dict().keys() == ALONE[case][0]().state_dict().keys()


@pytest.mark.parametrize(("case", "recast"), WITH_AND_WITHOUT)
def test_removing_a_method_brings_the_start_back(case: str, recast: bool) -> None:
    model, start = prepared(case, recast)
    names = None if recast else [n for n, _ in ALONE[case][0]().named_modules() if "head" not in n]
    coefficients = model.net.coefficients.flat.clone() if recast else None  # type: ignore[union-attr]
    shake(model)
    net = model.remove()
    if coefficients is not None:
        assert isinstance(net, RecastModel)
        with torch.no_grad():
            net.coefficients.flat.copy_(coefficients)
        assert [n for n, p in net.named_parameters() if p.requires_grad] == ["coefficients.flat"]
    elif names is not None:
        assert [n for n, _ in net.backbone.named_modules() if "head" not in n] == names
    torch.testing.assert_close(logits(net), start, rtol=1e-4, atol=1e-4)


def vit_small() -> nn.Module:
    return VisionTransformer(32, 4, 12, 6, 384, 1536, num_classes=200)


VIT_SMALL_WEIGHTS = 384 * 3 * 16 + 12 * 384 * 384 * (3 + 1 + 4 + 4)
RESNET34_WEIGHTS = sum(
    p.numel() for n, p in resnet34().named_parameters() if p.dim() == 4 and "fc" not in n
)


@pytest.mark.parametrize(
    ("make", "chosen", "count"),
    [
        (vit_small, NormAffine(), 25 * 2 * 384),
        (resnet34, NormAffine(), 17_024),
        (vit_small, Lora(4), 12 * 2 * 4 * (384 + 384)),
        (vit_small, Lora(2, "mlp"), 12 * 2 * 2 * (384 + 1536)),
        (resnet34, Lora(1, "*layer1.1.conv1"), 64 * 9 + 64),
        (vit_small, LoraXs(4), 12 * 3 * 16),
        (resnet34, LoraXs(2, "*layer1.1.conv?"), 2 * 4),
        (vit_small, Vera(8, "mlp"), 12 * (1536 + 8 + 384 + 8)),
        (vit_small, TinyLora(12, 4), 48),
        (vit_small, NormGroups(4), 25 * 2 * 4),
        (resnet34, NormGroups(1), 36 * 2),
        (vit_small, AdaptFormer(64), 12 * (2 * 384 * 64 + 64 + 384)),
        (vit_small, Piggyback(), VIT_SMALL_WEIGHTS),
        (resnet34, Piggyback(), RESNET34_WEIGHTS),
        (resnet34, Clr(), 9 * (64 + 6 * 64 + 8 * 128 + 12 * 256 + 6 * 512)),
        (vit_small, method("head"), 0),
    ],
)
def test_counts_follow_their_formulas(make: Maker, chosen: Method, count: int) -> None:
    model = chosen.prepare(make())
    assert model.sent_count == count
    assert model.trained_count == count
    assert model.sent_vector().numel() == count
    bits = 1 if isinstance(chosen, Piggyback) else 32
    assert model.sent_bytes == -(-count * bits // 8)
    assert model.describe()["sent"] == count


def test_recast_sends_the_mean_of_its_sets() -> None:
    model = vit()
    net = attach(model, mimic(model, RecastConfig(target="attn", sets=2)))
    ready = Recast().prepare(net)
    assert ready.trained_count == 2 * ready.sent_count == net.bank.trained
    shake(ready)
    assert torch.equal(ready.sent_vector(), net.coefficients.sent())


def test_a_method_on_recast_sends_the_coefficients_first() -> None:
    net = on_recast(vit, "mlp")
    model = Lora(2).prepare(net)
    alone = Lora(2).prepare(vit())
    assert model.sent_count == net.bank.sent + alone.sent_count
    assert torch.equal(model.sent_vector()[: net.bank.sent], net.bank.initial_vector)


def test_lora_reaches_query_and_value_but_not_key() -> None:
    model = Lora(2).prepare(vit())
    shake(model)
    before = vit().encoder.layers[0].self_attention.in_proj_weight  # type: ignore[index, union-attr]
    after = model.merge().encoder.layers[0].self_attention.in_proj_weight  # type: ignore[index, union-attr]
    changed = (after - before).abs().amax(1) > 0
    assert bool(changed[:16].all())
    assert not bool(changed[16:32].any())
    assert bool(changed[32:].all())


def test_the_mean_of_masks_keeps_what_most_kept() -> None:
    model = Piggyback().prepare(vit())
    ones = torch.ones(model.sent_count)
    votes = ones * 2 / 3
    votes[:10] = 1 / 3
    model.load_vector(votes)
    assert torch.equal(model.sent_vector()[10:], ones[10:])
    assert float(model.sent_vector()[:10].sum()) == 0


@pytest.mark.parametrize("joint", [False, True])
def test_training_lowers_the_loss_and_changes_only_what_trains(joint: bool) -> None:
    model = Lora(2).prepare(vit())
    x = images(48)
    labels = (x.mean((1, 2, 3)) > 0).long()
    frozen = {n: p.clone() for n, p in model.named_parameters() if not p.requires_grad}
    head = nn.Linear(16, 2)

    def learn(epochs: int) -> float:
        objective = CrossEntropy(head, trains=True) if joint else SplitRidge(2)
        return train(model, x, labels, objective, Recipe(epochs, 24, 1e-2))

    first, last = learn(1), learn(10)
    assert last < first
    for name, parameter in model.named_parameters():
        if name in frozen:
            assert torch.equal(parameter, frozen[name]), name


def test_the_same_method_starts_the_same_on_every_client() -> None:
    for chosen in (Lora(2), AdaptFormer(4), LoraXs(2), Vera(4), TinyLora(3, 2)):
        torch.manual_seed(1)
        one = chosen.prepare(vit()).sent_vector()
        torch.manual_seed(2)
        assert torch.equal(one, chosen.prepare(vit()).sent_vector())


def test_mistakes_are_refused_with_a_remedy() -> None:
    with pytest.raises(RecastError, match="target='conv'"):
        Lora().prepare(resnet())
    with pytest.raises(RecastError, match="vision transformer"):
        AdaptFormer().prepare(resnet())
    with pytest.raises(RecastError, match="needs a bank"):
        Recast().prepare(vit())
    for chosen in (Full(), method("head-only")):
        with pytest.raises(RecastError, match="prepare the backbone itself"):
            chosen.prepare(on_recast(vit, "mlp"))
    with pytest.raises(RecastError, match="did you mean lora"):
        method("loar")
    with pytest.raises(RecastError, match="at least 1"):
        Lora(0)
    model = NormAffine().prepare(vit())
    with pytest.raises(RecastError, match="takes a vector of"):
        model.load_vector(torch.zeros(3))
    with pytest.raises(RecastError, match="NaN"):
        model.load_vector(torch.full((model.sent_count,), float("nan")))
    with pytest.raises(RecastError, match="bytes"):
        model.decode(b"1234")


def test_every_method_has_its_name() -> None:
    assert [method(name).name for name in METHODS] == list(METHODS)


def test_norm_affine_reaches_a_recombined_normalisation() -> None:
    model = resnet()
    wanted, weight = logits(model), model.get_submodule("layer1.0.bn1").weight.detach()[None]
    group = TemplateGroup("bn", ("layer1.0.bn1",), "weight", (0,), torch.ones_like(weight))
    bank = TemplateBank((group,), (torch.zeros(1),), residual=True)
    ready = NormAffine().prepare(attach(model, bank))
    assert ready.sent_count == 1 + NormAffine().prepare(resnet()).sent_count
    torch.testing.assert_close(logits(ready), wanted, rtol=1e-4, atol=1e-4)
    shake(ready)
    moved = logits(ready)
    torch.testing.assert_close(logits(ready.merge()), moved, rtol=1e-4, atol=1e-4)
