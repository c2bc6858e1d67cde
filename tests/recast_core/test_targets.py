"""Bad targets and bad weights are refused with their cause and remedy."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torchvision.models import VisionTransformer, resnet18

from recast_core import RecastConfig, RecastError, mimic
from recast_core.mimicry import stacked_weights
from recast_core.targets import TargetGroup, find_groups, patterns_of


def vit(layers: int = 4) -> nn.Module:
    return VisionTransformer(16, 8, layers, 2, 16, 32)


def test_a_pattern_that_matches_nothing_lists_near_names() -> None:
    config = RecastConfig(("encoder.layers.encoder_layer_1.mpl.0",))
    with pytest.raises(RecastError, match=r"near names are .*encoder_layer_1\.mlp\.0"):
        find_groups(vit(), config)


def test_a_preset_on_the_wrong_family_is_refused() -> None:
    with pytest.raises(RecastError, match="matches no module"):
        find_groups(vit(), RecastConfig.preset("recast-resnet"))


def test_a_preset_on_a_network_of_ones_own_lists_its_layers() -> None:
    model = nn.Sequential()
    for name in ("first", "second", "third"):
        model.add_module(name, nn.Conv2d(3, 3, 3))
    with pytest.raises(RecastError, match=r"names of published .* it has first, second, third$"):
        find_groups(model, RecastConfig("conv"))


def test_a_network_of_ones_own_is_offered_patterns_that_find_targets() -> None:
    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.up, self.down = nn.Linear(4, 8), nn.Linear(8, 4)

    model = nn.ModuleDict({"blocks": nn.ModuleList(Block() for _ in range(3)), "top": Block()})
    with pytest.raises(RecastError, match=r"such as 'blocks\.\*\.up', or blocks\.\*\.down$"):
        find_groups(model, RecastConfig("mlp"))
    assert len(find_groups(model, RecastConfig("blocks.*.up,blocks.*.down"))) == 2
    with pytest.raises(RecastError, match="the model is a single layer"):
        find_groups(nn.Linear(3, 3), RecastConfig("mlp"))


def test_groups_of_a_lone_layer_are_one() -> None:
    with pytest.raises(RecastError, match=r"divide '1', the only layer of its shape: choose 1$"):
        find_groups(nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 9)), RecastConfig(("1",), groups=2))


def test_groups_that_do_not_divide_name_the_layers() -> None:
    with pytest.raises(RecastError, match="3 groups do not divide the 4 layers"):
        find_groups(vit(), RecastConfig("mlp", groups=3))


def test_layers_of_one_pattern_and_unequal_shape_land_in_groups_of_their_own() -> None:
    for group in find_groups(resnet18(), RecastConfig(("layer*.conv1",))):
        model = resnet18()
        assert {tuple(model.get_submodule(m).weight.shape) for m in group.modules} == {group.shape}


def test_a_group_of_unequal_shapes_is_refused() -> None:
    model = resnet18()
    group = TargetGroup("g", ("layer1.0.conv1", "layer2.1.conv1"), "weight", (64, 64, 3, 3))
    with pytest.raises(RecastError, match="unequal shape"):
        stacked_weights(model, group)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused(bad: float) -> None:
    model = vit()
    name, module = next((n, m) for n, m in model.named_modules() if n.endswith("mlp.0"))
    with torch.no_grad():
        module.weight[0, 0] = bad  # type: ignore[operator, index]
    with pytest.raises(RecastError, match=name.replace(".", r"\.")):
        mimic(model)


@pytest.mark.parametrize("source", ["closed-form", "seeded"])
def test_half_precision_is_refused(source: str) -> None:
    with pytest.raises(RecastError, match=r"float16: call model\.float\(\)"):
        mimic(vit().half(), RecastConfig(source=source, residual=True))


def test_meta_tensors_are_refused() -> None:
    with pytest.raises(RecastError, match="is a meta tensor"):
        mimic(vit().to("meta"))


@pytest.mark.parametrize("source", ["closed-form", "gradient", "vae"])
def test_more_templates_than_layers_are_refused(source: str) -> None:
    config = RecastConfig("mlp", templates=5, source=source, basis="orthonormal")
    with pytest.raises(RecastError, match="5 templates for a group of 4 layers"):
        mimic(vit(), config)


def test_fewer_own_templates_than_layers_need_the_residual_form() -> None:
    with pytest.raises(RecastError, match="cannot span 4 layers"):
        mimic(vit(), RecastConfig("mlp", templates=2))


@pytest.mark.parametrize("source", ["seeded", "task-vectors"])
def test_sources_that_do_not_span_the_layers_need_the_residual_form(source: str) -> None:
    with pytest.raises(RecastError, match="set residual=True"):
        RecastConfig(source=source)


def test_task_vectors_cannot_come_from_the_backbone_alone() -> None:
    with pytest.raises(RecastError, match="task_vector_bank"):
        mimic(vit(), RecastConfig(source="task-vectors", residual=True))


def test_an_unknown_source_is_refused() -> None:
    with pytest.raises(RecastError, match="unknown source 'closedform'"):
        RecastConfig(source="closedform")


def test_names_with_commas_are_patterns_and_presets_with_commas_are_told_apart() -> None:
    model = nn.Sequential(*(nn.Linear(4, 4) for _ in range(4)))
    group, _ = find_groups(model, RecastConfig(patterns_of("0, 2"), groups=1))
    assert group.modules == ("0",)
    with pytest.raises(RecastError, match=r"did you mean attn\+mlp"):
        patterns_of("attn,mlp")
