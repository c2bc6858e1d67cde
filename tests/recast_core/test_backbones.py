import os
import pickle
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torchvision import models

from recast_core import RecastError, backbones
from recast_core.backbones import (
    DEFAULT_BACKBONE,
    IMAGENET_MEAN,
    IMAGENET_STD,
    Preprocess,
    load_backbone,
)
from recast_core.backbones.architectures import parse_architecture
from recast_core.backbones.cifar_resnet import CifarResNet
from recast_core.classes import task_ids

SHARED = Path(os.environ.get("RECAST_SHARED", Path(__file__).parents[2].parent / "shared"))
needs_shared = pytest.mark.skipif(
    not (SHARED / "weights").is_dir(), reason=f"no research weights at {SHARED} (RECAST_SHARED)"
)


def small_resnet18() -> nn.Module:
    model = models.resnet18(num_classes=5)
    model.conv1 = nn.Conv2d(3, 64, 3, 1, 1, bias=False)
    model.maxpool = nn.Identity()
    return model


def vit(heads: int = 1, width: int = 64, layers: int = 2, mlp: int = 96) -> nn.Module:
    return models.VisionTransformer(16, 4, layers, heads, width, mlp, num_classes=5)


@pytest.mark.parametrize(
    ("make", "size", "head"),
    [
        (lambda: CifarResNet(14, 5), 32, "linear"),
        (small_resnet18, 32, "fc"),
        (lambda: models.resnet18(num_classes=5), 224, "fc"),
        (lambda: vit(heads=3, width=192, layers=12, mlp=768), 16, "heads"),
    ],
    ids=["cifar_resnet", "small_stem", "imagenet_stem", "vit"],
)
def test_a_saved_model_is_recognised_and_computes_the_same(make, size, head, tmp_path):
    torch.manual_seed(3)
    # Frozen like what is loaded: torchvision's attention takes another path with gradients.
    model = make().eval().requires_grad_(False)
    with torch.no_grad():  # torchvision starts a ViT's head at zero, which would hide any error
        for parameter in model.parameters():
            parameter.add_(0.01 * torch.randn_like(parameter))
    wrapped = {f"module.{key}": value for key, value in model.state_dict().items()}
    torch.save({"state_dict": wrapped, "best": 1.0}, tmp_path / "w.th")
    save_file(model.state_dict(), tmp_path / "w.safetensors")
    images = torch.randn(2, 3, min(size, 64), min(size, 64))
    for name in ("w.th", "w.safetensors"):
        loaded = load_backbone(f"file:{tmp_path / name}")
        assert torch.equal(loaded.model(images), model(images))
        assert (loaded.head, loaded.preprocess.size) == (head, size)


def test_a_backbone_is_frozen_float32_and_in_evaluation_mode(tmp_path):
    state = {key: value.half() for key, value in CifarResNet(8).state_dict().items()}
    save_file(state, tmp_path / "w.safetensors")
    model = load_backbone(f"file:{tmp_path}/w.safetensors").model
    assert not model.training
    assert all(p.dtype == torch.float32 and not p.requires_grad for p in model.parameters())
    assert all(torch.equal(model.state_dict()[key].half(), value) for key, value in state.items())


def test_the_packaged_default_holds_letters_in_float16_within_3_mb():
    path = Path(backbones.__file__).parent / "weights" / f"{DEFAULT_BACKBONE}.safetensors"
    assert path.stat().st_size < 3e6
    loaded = load_backbone()
    state = loaded.model.state_dict()
    assert all(torch.equal(value, value.half().float()) for value in state.values())
    assert "layer3.2.bn2.running_var" in state
    assert (loaded.spec, loaded.head, loaded.preprocess.size) == (DEFAULT_BACKBONE, "linear", 16)


def test_an_explicit_architecture_overrides_what_shapes_suggest(tmp_path):
    path = tmp_path / "a@b.safetensors"
    model = vit(heads=4).eval()
    save_file(model.state_dict(), path)
    assert load_backbone(f"file:{path}@vit(num_heads=4)").model.encoder.layers[0].num_heads == 4
    # 64 / 1, 64 / 2 and 64 / 4 would all be possible: what is not known is asked.
    with pytest.raises(RecastError, match=r"attention heads.*@vit\(num_heads=NUMBER\)"):
        load_backbone(f"file:{path}")


def test_the_files_metadata_decide_the_preprocessing(tmp_path):
    metadata = {"size": "16", "mean": "0.25,0.25,0.25", "std": "0.3,0.3,0.3"}
    save_file(CifarResNet(8).state_dict(), tmp_path / "w.safetensors", metadata)
    loaded = load_backbone(f"file:{tmp_path}/w.safetensors")
    assert loaded.preprocess == Preprocess(16, (0.25,) * 3, (0.3,) * 3)


def test_random_torchvision_weights_are_the_same_everywhere_and_leave_the_generator_alone():
    torch.manual_seed(1)
    first = load_backbone("resnet18:none")
    drawn = torch.rand(1)
    torch.manual_seed(1)
    assert torch.equal(drawn, torch.rand(1))
    second = load_backbone("resnet18:none").model.state_dict()
    assert all(torch.equal(value, second[key]) for key, value in first.model.state_dict().items())
    assert (first.head, first.preprocess.size) == ("fc", 224)


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ("resnet3", "near names: resnet"),
        ("glyph_resnet", "glyph_resnet20"),
        ("resnet18:IMAGENET", "choose IMAGENET1K_V1"),
        ("file:", "give the path"),
        ("file:no/such.th", "no folder"),
        ("file:{folder}/weight.th", "near names: weights.th"),
        ("file:{folder}/weights.th@resnet18", "weights do not fit"),
        ("file:{folder}/weights.th@cifar_resnet(depth=9)", "not 6n + 2"),
        ("file:{folder}/weights.th@cifar_resnet(depth=__import__('os'))", "whole numbers"),
        ("file:{folder}/weights.th@cifar_resnets(depth=8)", "did you mean cifar_resnet?"),
        ("file:{folder}/weights.th@vit", "lacks"),
        ("file:{folder}/weights.txt", "safetensors"),
        ("file:{folder}/code.pt", "could run code"),
        ("file:{folder}/broken.safetensors", "cannot read"),
        ("file:{folder}/odd.safetensors", "no known architecture"),
        ("module:json", "module:pkg.mod:factory"),
        ("module:no_such_module:make", "PYTHONPATH"),
        ("module:json:dum", "near names: dump"),
        ("module:json:JSONDecoder", "return a torch.nn.Module"),
    ],
)
def test_a_bad_spec_is_one_line_with_a_remedy(spec, says, tmp_path):
    torch.save(CifarResNet(8).state_dict(), tmp_path / "weights.th")
    (tmp_path / "weights.txt").write_text("")
    (tmp_path / "code.pt").write_bytes(pickle.dumps({"a": Path("x")}, protocol=2))
    (tmp_path / "broken.safetensors").write_bytes(b"no")
    save_file({"a": torch.zeros(1)}, tmp_path / "odd.safetensors")
    with pytest.raises(RecastError) as caught:
        load_backbone(spec.format(folder=tmp_path))
    message = str(caught.value)
    assert says in message
    assert "\n" not in message


def test_an_unreachable_hub_names_the_remedy(monkeypatch):
    def refuse(*_args, **_kwargs):
        raise OSError("unreachable")

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", refuse)
    with pytest.raises(RecastError, match="file:PATH"):
        load_backbone("resnet18:IMAGENET1K_V1")


def test_a_factory_of_the_users_own_is_called(tmp_path, monkeypatch):
    source = "from recast_core.backbones.cifar_resnet import CifarResNet\n"
    (tmp_path / "own_nets.py").write_text(source + "def make(): return CifarResNet(8, 3)\n")
    monkeypatch.syspath_prepend(tmp_path)
    loaded = load_backbone("module:own_nets:make")
    sys.modules.pop("own_nets")
    assert loaded.model.linear.out_features == 3
    assert loaded.preprocess == Preprocess(224, IMAGENET_MEAN, IMAGENET_STD)


def test_preprocessing_leaves_pixels_of_the_right_size_alone():
    images = np.random.default_rng(0).integers(0, 256, (4, 8, 8, 3), np.uint8)
    got = Preprocess(8, (0.0,) * 3, (1.0,) * 3)(images)
    assert torch.equal(got, torch.from_numpy(images).permute(0, 3, 1, 2) / 255)


def test_grey_images_of_both_layouts_become_three_equal_channels():
    images = np.random.default_rng(0).integers(0, 256, (4, 8, 8), np.uint8)
    got = Preprocess(16, (0.25,) * 3, (0.3,) * 3)(images)
    assert got.shape == (4, 3, 16, 16)
    assert torch.equal(got[:, 0], got[:, 2])
    assert torch.equal(got, Preprocess(16, (0.25,) * 3, (0.3,) * 3)(images[..., None]))


def test_oblong_images_keep_their_proportions():
    image = np.zeros((1, 20, 60), np.uint8)
    image[:, :, 20:40] = 255
    got = Preprocess(10, (0.0,) * 3, (1.0,) * 3)(image)
    assert got.shape == (1, 3, 10, 10)
    assert got[..., 1:-1].min() == 1


@pytest.mark.parametrize("shape", [(0, 8, 8), (0, 16, 16, 3)])
def test_no_images_give_no_images(shape):
    assert Preprocess(16)(np.zeros(shape, np.uint8)).shape == (0, 3, 16, 16)


@pytest.mark.parametrize(
    "images", [np.zeros((1, 8, 8)), np.zeros((1, 8, 8, 4), np.uint8), np.zeros((8, 8), np.uint8)]
)
def test_other_dtypes_and_shapes_are_refused(images):
    with pytest.raises(RecastError, match="give"):
        Preprocess(8)(images)


def test_architectures_read_back_what_they_print():
    text = "vit(image_size=32,patch_size=4)"
    assert str(parse_architecture(text)) == text
    assert parse_architecture("resnet34").options == {}


@needs_shared
@pytest.mark.parametrize(
    "name",
    [
        "resnet20-12fca82f.th",
        "resnet32-d509ac18.th",
        "resnet44-014dd654.th",
        "resnet56-4bfd9763.th",
        "resnet34_32px.safetensors",
        "vit_small_p4_32px.safetensors",
    ],
)
def test_published_weights_load_at_32_pixels(name):
    assert load_backbone(f"file:{SHARED / 'weights' / name}").preprocess.size == 32


@needs_shared
def test_resnet56_classifies_cifar10_as_published():
    data = np.load(SHARED / "data" / "cifar10.npz")
    loaded = load_backbone(f"file:{SHARED / 'weights' / 'resnet56-4bfd9763.th'}")
    images, labels = loaded.preprocess(data["x_test"][:1000]), data["y_test"][:1000]
    with torch.no_grad():
        found = torch.cat([loaded.model(part).argmax(1) for part in images.split(250)])
    # 93.6 % on all 10,000; the standard error on these is 0.8 points.
    assert (found.numpy() == labels).mean() > 0.91


def test_a_torchvision_classifier_names_its_classes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "torchvision.models._api.load_state_dict_from_url",
        lambda url, *args, **options: models.get_model(
            "shufflenet_v2_x0_5", weights=None
        ).state_dict(),
    )  # fmt: skip
    found = load_backbone("shufflenet_v2_x0_5")
    assert (len(found.classes), found.classes[:2]) == (1000, ("tench", "goldfish"))
    assert load_backbone("shufflenet_v2_x0_5:none").classes == ()


def test_folders_named_by_synset_are_the_classes_of_an_imagenet_classifier() -> None:
    names = ("tench", *(f"k{n}" for n in range(1, 1000)))
    synsets = tuple(f"n{n:08}" for n in range(1000))
    assert task_ids(synsets, names, [0, 7]) == list(range(1000))
    for others in (synsets[:10], synsets[::-1], (*synsets[:-1], "zebra")):
        with pytest.raises(RecastError, match="none of the task's 1000"):
            task_ids(others, names, [0, 7])
    with pytest.raises(RecastError, match="none of the task's 1000"):
        task_ids(synsets, ("aster", *names[1:]), [0])
