"""``hf:`` and ``timm:``: tiny models with random weights in folders; no hub is asked."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from recast_core import RecastConfig, RecastError, attach, mimic
from recast_core.backbones import load_backbone
from recast_core.targets import find_groups


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


@pytest.fixture(scope="module")
def hf_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessor

    torch.manual_seed(1)
    config = ViTConfig(
        hidden_size=16, num_hidden_layers=3, num_attention_heads=2, intermediate_size=32,
        image_size=32, patch_size=8, id2label={0: "cat", 1: "dog", 2: "cow"},
    )  # fmt: skip
    folder = tmp_path_factory.mktemp("hf") / "tiny-vit"
    ViTForImageClassification(config).save_pretrained(folder)
    ViTImageProcessor(
        size={"height": 32, "width": 32}, image_mean=[0.5, 0.4, 0.3], image_std=[0.2, 0.2, 0.1]
    ).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def timm_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import timm

    torch.manual_seed(0)
    options = {"img_size": 32, "patch_size": 8, "embed_dim": 16, "depth": 3, "num_heads": 2}
    model = timm.create_model("vit_tiny_patch16_224", num_classes=4, **options)
    folder = tmp_path_factory.mktemp("timm") / "tiny-vit"
    folder.mkdir()
    save_file(model.state_dict(), folder / "model.safetensors")
    about = {"input_size": [3, 32, 32], "mean": [0.5, 0.4, 0.3], "std": [0.2, 0.2, 0.1]}
    (folder / "config.json").write_text(
        json.dumps(
            {
                "architecture": "vit_tiny_patch16_224",
                "num_classes": 4,
                "model_args": options,
                "pretrained_cfg": {**about, "num_classes": 4, "label_names": list("wxyz")},
            }
        )
    )
    return folder


@pytest.mark.parametrize("kind", ["hf", "timm"])
def test_a_folder_gives_model_images_classes_and_a_bank(
    kind: str, hf_folder: Path, timm_folder: Path
) -> None:
    spec = f"hf:{hf_folder}" if kind == "hf" else f"timm:local-dir:{timm_folder}"
    loaded = load_backbone(spec)
    assert (loaded.preprocess.size, loaded.preprocess.mean) == (32, (0.5, 0.4, 0.3))
    assert loaded.classes == (("cat", "dog", "cow") if kind == "hf" else tuple("wxyz"))
    images = torch.randint(0, 256, (2, 32, 32, 3), dtype=torch.uint8)
    pixels = loaded.preprocess(images)
    with torch.no_grad():
        before = loaded.model(pixels)
        before = getattr(before, "logits", before)
    bank = mimic(loaded.model, RecastConfig(target="mlp"))
    net = attach(loaded.model, bank, loaded.head)
    torch.testing.assert_close(net(pixels).detach(), before, rtol=1e-4, atol=1e-5)
    again = load_backbone(spec).model
    assert mimic(again, RecastConfig(target="mlp")).sha256 == bank.sha256


def test_weights_without_a_classifier_are_said_to_be_and_those_without_more_refused(
    hf_folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    from transformers import ViTConfig, ViTImageProcessor, ViTModel

    ViTModel(ViTConfig.from_pretrained(hf_folder)).save_pretrained(tmp_path)
    ViTImageProcessor(size={"height": 32, "width": 32}, do_normalize=False).save_pretrained(
        tmp_path
    )
    capfd.readouterr()
    one, other = (load_backbone(f"hf:{tmp_path}") for _ in range(2))
    assert "has no classifier (classifier.bias, classifier.weight): it is random" in one.notes[0]
    assert torch.equal(one.model.classifier.weight, other.model.classifier.weight)
    assert (one.preprocess.mean, one.preprocess.std) == ((0.0,) * 3, (1.0,) * 3)
    assert "\n\n" not in capfd.readouterr().err
    state = load_file(tmp_path / "model.safetensors")
    state.pop("layernorm.weight")
    save_file(state, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(RecastError, match=r"lack 1 tensors, such as vit.layernorm.weight"):
        load_backbone(f"hf:{tmp_path}")


def test_weights_may_be_random_and_are_the_same_everywhere(hf_folder: Path) -> None:
    one, other = (load_backbone(f"hf:{hf_folder}", weights=False).model for _ in range(2))
    own = load_backbone(f"hf:{hf_folder}").model
    for a, b in zip(one.parameters(), other.parameters(), strict=True):
        assert torch.equal(a, b)
    pairs = zip(one.parameters(), own.parameters(), strict=True)
    assert not all(torch.equal(a, b) for a, b in pairs)
    loaded = load_backbone("timm:test_vit.r160_in1k:none")
    assert loaded.preprocess.size == 160


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("hf:/no/such/folder", "cannot load backbone hf:/no/such/folder .no folder is there"),
        ("hf:./tiny", "cannot load backbone hf:./tiny .no folder is there"),
        ("timm:vit_tinny:none", "cannot load backbone timm:vit_tinny:none"),
    ],
)
def test_a_model_that_is_not_there_is_one_line(spec: str, message: str) -> None:
    with pytest.raises(RecastError, match=message) as caught:
        load_backbone(spec)
    assert "\n" not in str(caught.value)


def test_a_hub_that_does_not_answer_is_one_line_at_once_and_one_error(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    import transformers

    def silent(*_: object) -> None:
        for attempt in range(5):
            logger = logging.getLogger("huggingface_hub.utils._http")
            logger.warning("no route to %s", "the hub")
            logger.warning("Retrying in %d s", attempt)
        raise OSError("no route")

    monkeypatch.setattr(transformers.AutoConfig, "from_pretrained", silent)
    with pytest.raises(RecastError, match=r"hf:OWN/NET \(the hub does not answer\): look its name"):
        load_backbone("hf:OWN/NET")
    of_hub = [record for record in caplog.records if record.name.startswith("huggingface_hub")]
    assert [record.getMessage() for record in of_hub] == [
        "recast: hf:OWN/NET: no answer from the hub, it is asked for half a minute"
    ]


def test_a_residual_network_of_hugging_face_has_the_target_conv(tmp_path: Path) -> None:
    from transformers import ResNetConfig, ResNetForImageClassification

    config = ResNetConfig(embedding_size=4, hidden_sizes=[4, 8], depths=[2, 3], layer_type="basic")
    ResNetForImageClassification(config).save_pretrained(tmp_path)
    model = load_backbone(f"hf:{tmp_path}@size=32,mean=0.5,std=0.5").model
    groups = find_groups(model, RecastConfig("conv"))
    assert [len(group.modules) for group in groups] == [1, 1, 2, 2]


def test_an_option_that_cannot_be_read_is_shown_right_for_this_model(hf_folder: Path) -> None:
    with pytest.raises(RecastError, match=f"write hf:{hf_folder}@size=28"):
        load_backbone(f"hf:{hf_folder}@shape=3")


def test_a_model_that_is_no_classifier_of_images_is_refused(tmp_path: Path) -> None:
    from transformers import BertConfig

    BertConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=1).save_pretrained(tmp_path)
    with pytest.raises(RecastError, match="classifier of images"):
        load_backbone(f"hf:{tmp_path}")


@pytest.mark.parametrize(("kind", "package"), [("hf", "transformers"), ("timm", "timm")])
def test_a_library_that_is_missing_is_named_with_its_extra(
    kind: str, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, package, None)
    with pytest.raises(RecastError, match=f"needs {package}: `pip install 'recast-fl\\[models\\]'"):
        load_backbone(f"{kind}:x")
