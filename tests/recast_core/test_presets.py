"""The paper's variants: their counts are those of the paper, and they start at the backbone."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torchvision.models import VisionTransformer, resnet18, resnet34, resnet50

from recast_core import RecastConfig, RecastError, attach, mimic
from recast_core.config import PAPER_PRESETS


def vit_small(hidden: int = 384) -> nn.Module:
    return VisionTransformer(32, 8, 12, 6, hidden, 4 * hidden, num_classes=10).eval()


@pytest.fixture(scope="module")
def vit() -> nn.Module:
    return vit_small()


@pytest.mark.parametrize(
    ("preset", "trained", "sent", "templates"),
    [("recast-att", 48, 24, 12), ("recast-mlp", 96, 48, 24), ("recast-att+mlp", 144, 72, 36)],
)
def test_vit_small_has_the_counts_of_the_paper(
    vit: nn.Module, preset: str, trained: int, sent: int, templates: int
) -> None:
    bank = mimic(vit, RecastConfig.preset(preset))
    assert (bank.trained, bank.sent, bank.template_count, bank.sets) == (
        trained,
        sent,
        templates,
        2,
    )
    assert all(len(group.modules) == 2 for group in bank.groups)


@pytest.mark.parametrize(
    ("make", "trained", "sent"), [(resnet18, 16, 8), (resnet34, 168, 84), (resnet50, 168, 84)]
)
def test_resnets_have_one_template_per_block_but_the_first_of_each_stage(
    make: object, trained: int, sent: int
) -> None:
    bank = mimic(make(), RecastConfig.preset("recast-resnet"))  # type: ignore[operator]
    assert (bank.trained, bank.sent, len(bank.groups)) == (trained, sent, 8)
    for group in bank.groups:
        assert len(group.templates) == len(group.modules)
        assert not any(".0." in f"{module}." for module in group.modules)


@pytest.mark.parametrize("preset", PAPER_PRESETS)
def test_attached_presets_give_the_logits_of_the_backbone(preset: str) -> None:
    torch.manual_seed(0)
    model = resnet18(num_classes=10).eval() if preset == "recast-resnet" else vit_small(48)
    if isinstance(model, VisionTransformer):
        nn.init.normal_(model.heads.head.weight)
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        expected = model(images)
        found = attach(copy.deepcopy(model), mimic(model, RecastConfig.preset(preset)))(images)
    assert (found - expected).abs().max() <= 1e-4 * expected.abs().max()
    assert expected.abs().max() > 0


def test_an_unknown_preset_names_the_nearest() -> None:
    with pytest.raises(RecastError, match="did you mean recast-mlp"):
        RecastConfig.preset("recast-mpl")
