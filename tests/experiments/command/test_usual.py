"""Plan and mimic take the targets that a backbone has where nobody says."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torchvision.models import VisionTransformer

from experiments.command import mimic, plan, usual
from experiments.command.usual import config_for
from recast_core.backbones import Backbone, load_backbone


def test_a_resnet_is_asked_for_its_convolutions_and_a_transformer_for_its_mlp(
    tmp_path: Path,
) -> None:
    torch.manual_seed(0)
    vit = VisionTransformer(8, 4, 2, 2, 16, 32, num_classes=4)
    save_file(vit.state_dict(), tmp_path / "vit.safetensors", {"num_heads": "2"})
    assert config_for("glyph_resnet20", {}).target == "conv"
    assert config_for(f"file:{tmp_path / 'vit.safetensors'}", {"groups": 1}).target == "mlp"


@pytest.mark.parametrize("given", [{"target": "mlp"}, {"preset": "recast-mlp"}])
def test_what_was_said_stays(given: dict[str, str]) -> None:
    assert config_for("glyph_resnet20", given).target == "mlp"


@pytest.mark.parametrize("command", ["plan", "mimic"])
def test_a_backbone_is_built_once(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    built = []

    def counting(*args: object, **kwargs: object) -> Backbone:
        built.append(args)
        return load_backbone(*args, **kwargs)  # type: ignore[arg-type]

    for module in (plan, mimic, usual):
        monkeypatch.setattr(module, "load_backbone", counting)
    if command == "plan":
        plan.plan("glyph_resnet20", {}, 8)
    else:
        mimic.mimic("glyph_resnet20", {}, "closed-form", None, "")
    assert len(built) == 1
