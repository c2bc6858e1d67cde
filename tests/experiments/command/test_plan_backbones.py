"""``recast plan`` needs shapes only, and says what it took for granted."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torchvision.models import VisionTransformer

from experiments.command import cli
from recast_core.backbones import load_backbone


def refuse(*args: object, **options: object) -> None:
    raise AssertionError("a download")


def call(*arguments: str) -> int:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["recast", *arguments])
        with pytest.raises(SystemExit) as end:
            cli.main()
    return int(end.value.code or 0)


def planned(capfd: pytest.CaptureFixture[str], *arguments: str) -> tuple[dict[str, object], str]:
    """What ``recast plan`` reports, and all that it prints without ``--json``."""
    assert call("plan", *arguments) == 0
    text = "".join(capfd.readouterr())
    assert call("plan", *arguments, "--json", "-") == 0
    out = capfd.readouterr().out
    return json.loads(out[out.index("{") :]), text


@pytest.mark.parametrize("spec", ["resnet18", "resnet18:IMAGENET1K_V1", "resnet18:none"])
def test_a_torchvision_name_downloads_nothing(
    spec: str, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", refuse)
    monkeypatch.setattr("torch.hub.download_url_to_file", refuse)
    report, _ = planned(capfd, spec, "--target", "conv")
    # Eight convolutions of blocks 1, in four pairs of one shape: 8 x 2 coefficients, float32.
    assert (report["sent"], report["templates"], report["groups"]) == (8, 8, 8)
    weights = sum(2 * width * width * 9 for width in (64, 128, 256, 512))
    assert 4 * weights < int(str(report["bank_bytes"])) < 4 * weights + 10_000


def test_weights_that_do_not_exist_are_refused_all_the_same(
    capfd: pytest.CaptureFixture[str],
) -> None:
    assert call("plan", "resnet18:IMAGENET9K") == 2
    assert "choose IMAGENET1K_V1, DEFAULT, none" in capfd.readouterr().err


def test_what_was_inferred_is_said(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "vit.safetensors"
    save_file(VisionTransformer(16, 8, 12, 6, 384, 1536, num_classes=3).state_dict(), path)
    _, out = planned(capfd, f"file:{path}", "--groups", "6")
    assert "6 attention heads inferred, as ViT-S" in " ".join(out.split())
    assert (
        "heads inferred" not in planned(capfd, f"file:{path}@vit(num_heads=6)", "--groups", "6")[1]
    )


@pytest.mark.parametrize("name", ["glyph_resnet20", "resnet18"])
def test_none_means_random_weights_the_same_everywhere(name: str) -> None:
    state = torch.get_rng_state()
    first, second = (load_backbone(f"{name}:none").model.state_dict() for _ in range(2))
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(tensor, second[key]) for key, tensor in first.items())
    if name == "glyph_resnet20":
        real = load_backbone(name).model.state_dict()
        assert first.keys() == real.keys()
        assert not torch.equal(first["conv1.weight"], real["conv1.weight"])
