"""Checkpoints as they lie around are opened, saying so; what is none is called what it is."""

from __future__ import annotations

import argparse
import gzip
import io
import logging
import pickle
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torchvision import models

from recast_core import RecastError
from recast_core.backbones import Backbone, load_backbone
from recast_core.backbones.architectures import infer_architecture, with_heads
from recast_core.backbones.cifar_resnet import CifarResNet

State = dict[str, Tensor]
IMAGES = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def network() -> nn.Module:
    torch.manual_seed(3)
    return CifarResNet(8, 5).eval().requires_grad_(False)


def prefixed(state: State, prefix: str) -> State:
    return {prefix + key: tensor for key, tensor in state.items()}


def optimizer() -> dict[str, object]:
    return {"state": {0: {"step": torch.tensor(1.0), "m": torch.zeros(3)}}, "param_groups": [{}]}


def ema(state: State) -> State:
    return {"n_averaged": torch.tensor(7), **prefixed(state, "module.")}


WRAPPED: dict[str, tuple[Callable[[State], object], str]] = {
    "state_dict": (lambda s: {"state_dict": s}, "'state_dict'"),
    "model": (lambda s: {"model": s, "epoch": 3}, "'model'"),
    "net": (lambda s: {"net": s, "acc": 93.1, "epoch": 200}, "'net'"),
    "model_state_dict": (
        lambda s: {"model_state_dict": s, "optimizer_state_dict": optimizer(), "loss": 0.1},
        "'model_state_dict'",
    ),
    "optimizer beside it": (lambda s: {"optimizer": optimizer(), "weights": s}, "'weights'"),
    "another name": (lambda s: {"my_net": s, "epoch": 1}, "'my_net'"),
    "arguments": (
        lambda s: {"model": s, "args": argparse.Namespace(lr=0.1, arch="resnet")}, "'model'",
    ),
    "numbers of NumPy": (
        lambda s: {"state_dict": s, "best": np.float64(1.5), "n": np.int64(3)}, "'state_dict'",
    ),
    "two deep": (lambda s: {"model": {"state_dict": s}}, "'model.state_dict'"),
    "parallel": (lambda s: prefixed(s, "module."), "'module.'"),
    "compiled": (lambda s: prefixed(s, "_orig_mod."), "'_orig_mod.'"),
    "both": (lambda s: prefixed(s, "module._orig_mod."), "'module._orig_mod.'"),
    "lightning": (
        lambda s: {
            "state_dict": prefixed(s, "model."), "pytorch-lightning_version": "2.5",
            "hyper_parameters": {"lr": 0.1}, "callbacks": {}, "loops": {}, "global_step": 7,
        },
        "'model.'",
    ),
    "any shared prefix": (lambda s: prefixed(s, "encoder."), "'encoder.'"),
    "sharded": (lambda s: prefixed(s, "_fsdp_wrapped_module."), "'_fsdp_wrapped_module.'"),
    "a part was wrapped": (
        lambda s: {k.replace("layer1.", "layer1.module._checkpoint_wrapped_module."): v
                   for k, v in s.items()},
        "took module, _checkpoint_wrapped_module out",
    ),
    "loss and metric beside the model": (
        lambda s: {"state_dict": {
            **prefixed(s, "net."), "criterion.weight": torch.ones(5), "acc.total": torch.tensor(1),
        }},
        "left out criterion.weight, acc.total",
    ),
    "averaged": (ema, "n_averaged"),
    "ema beside it": (
        lambda s: {"model": s, "model_ema": {k: v * 0 for k, v in s.items()}}, "not model_ema",
    ),
    "only ema": (lambda s: {"model_ema": ema(s), "decay": 0.9999}, "'model_ema'"),
    "profiled": (
        lambda s: {**s, "total_ops": torch.zeros(1), "conv1.total_params": torch.zeros(1)},
        "left out total_ops, conv1.total_params",
    ),
    "openmmlab": (
        lambda s: {"meta": {"CLASSES": ["a"]}, "state_dict": {
            ("head." if key.startswith("linear.") else "backbone.") + key: value
            for key, value in s.items()
        }},
        "took 'backbone.' and 'head.' off",
    ),
    "teacher before student": (
        lambda s: {"teacher": prefixed(s, "backbone."), "student": {"x": s["conv1.weight"]}},
        "not student",
    ),
    "numbers among the tensors": (lambda s: {**s, "epoch": 3, "note": None}, "epoch, note"),
}  # fmt: skip


def check(loaded: Backbone, wanted: nn.Module) -> None:
    assert torch.equal(loaded.model(IMAGES), wanted(IMAGES))


@pytest.mark.parametrize("old", [False, True], ids=["zip", "old format"])
@pytest.mark.parametrize("case", WRAPPED)
def test_a_wrapped_state_dict_is_taken_out_and_that_is_said_once(
    case: str, old: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    wrap, says = WRAPPED[case]
    path = tmp_path / "w.pth"
    content = wrap(network().state_dict())
    torch.save(content, path, _use_new_zipfile_serialization=not old)
    with caplog.at_level(logging.WARNING, "recast"):
        loaded = load_backbone(f"file:{path}")
        assert any(says in note for note in loaded.notes)
        assert load_backbone(f"file:{path}").notes == loaded.notes
    said = [one.getMessage() for one in caplog.records if one.name.startswith("recast")]
    assert said == [f"recast: {note}" for note in loaded.notes], "once"
    check(loaded, network())


@pytest.mark.parametrize(
    "name", ["w.ckpt", "w.pth.tar", "w.PTH", "w.Pt", "W.TH", "w.bin", "model_best.tar", "w.CKPT"]
)
def test_endings_count_in_any_case(name: str, tmp_path: Path) -> None:
    torch.save(network().state_dict(), tmp_path / name)
    loaded = load_backbone(f"file:{tmp_path / name}")
    check(loaded, network())
    assert not loaded.notes


@pytest.mark.parametrize("name", ["w.SAFETENSORS", "w.SafeTensors", "pytorch_model.bin", "w.pt"])
def test_safetensors_are_known_by_their_content(name: str, tmp_path: Path) -> None:
    save_file(prefixed(network().state_dict(), "module."), tmp_path / name, {"size": "16"})
    loaded = load_backbone(f"file:{tmp_path / name}")
    check(loaded, network())
    assert loaded.preprocess.size == 16
    assert any("'module.'" in note for note in loaded.notes)


def archive(kind: str) -> bytes:
    buffer = io.BytesIO()
    if kind == "tar":
        with tarfile.open(fileobj=buffer, mode="w") as tar:
            tar.addfile(tarfile.TarInfo("weights.pth"))
    else:
        with zipfile.ZipFile(buffer, "w") as archived:
            archived.writestr("weights.pth", b"x")
    return buffer.getvalue()


def saved(content: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


def arrays() -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, a=np.zeros(2))
    return buffer.getvalue()


def scripted() -> bytes:
    buffer = io.BytesIO()
    torch.jit.save(torch.jit.trace(nn.Linear(2, 2), torch.zeros(1, 2)), buffer)
    return buffer.getvalue()


def exported() -> bytes:
    buffer = io.BytesIO()
    torch.export.save(torch.export.export(nn.Linear(2, 2), (torch.zeros(1, 2),)), buffer)
    return buffer.getvalue()


def with_values(change: Callable[[Tensor], Tensor]) -> bytes:
    state = network().state_dict()
    return saved({**state, "conv1.weight": change(state["conv1.weight"])})


FOREIGN: dict[str, tuple[Callable[[], bytes], str]] = {
    "html": (lambda: b"\n<!DOCTYPE html><html><body>Sign in</body>", "web page"),
    "html of old": (lambda: b"<HTML>\n<HEAD>404", "web page"),
    "lfs pointer": (
        lambda: b"version https://git-lfs.github.com/spec/v1\noid sha256:12\nsize 3\n", "LFS",
    ),
    "json": (lambda: b'{"error": "Invalid credentials"}', "JSON"),
    "index of shards": (lambda: b'{\n  "weight_map": {}}', "JSON"),
    "empty": (lambda: b"", "empty"),
    "gzip": (lambda: gzip.compress(b"x"), "gunzip"),
    "tar": (lambda: archive("tar"), "tar archive"),
    "zip": (lambda: archive("zip"), r"zip archive of weights\.pth"),
    "npz": (arrays, "NumPy archive"),
    "keras": (lambda: b"\x89HDF\r\n\x1a\n" + bytes(64), "HDF5"),
    "torchscript": (scripted, "TorchScript"),
    "exported": (exported, "torch.export archive"),
    "annex pointer": (lambda: b"/annex/objects/MD5E-s1--0.pth\n", "git annex get"),
    "words": (lambda: b"Not Found\n", r"text \('Not Found'\)"),
    "html of wide letters": (lambda: "<!DOCTYPE html>".encode("utf-16"), "web page"),
    "sparse": (lambda: with_values(lambda t: t.to_sparse()), "quantised or sparse"),
    "not finite": (lambda: with_values(lambda t: t * float("nan")), "conv1.weight.* holds NaN"),
    "cut off": (lambda: saved(network().state_dict())[:-100], "cut off"),
    "whole model": (lambda: saved(network()), "could run code"),
    "rubbish": (lambda: bytes(range(200, 256)), "neither a torch file"),
    "list": (lambda: saved([torch.zeros(2)]), "no state dict"),
    "tensor": (lambda: saved(torch.zeros(2)), "no state dict"),
    "optimizer alone": (lambda: saved({"optimizer": optimizer()}), "no tensor"),
    "pickle": (lambda: pickle.dumps({"a": 1}), "pickle of Python's"),
    "onnx": (lambda: b"\x08\x08\x12\x07pytorch" + bytes(20), "ONNX file"),
    "lite": (lambda: b"\x1c\0\0\0TFL3" + bytes(20), "TensorFlow Lite"),
    "whole numbers": (lambda: with_values(lambda t: (100 * t).to(torch.int8)), "torch.int8"),
    "eighth floats": (lambda: with_values(lambda t: t.to(torch.float8_e4m3fn)), "scales"),
    "meta": (lambda: with_values(lambda t: t.to("meta")), "without data"),
    "negative variance": (
        lambda: saved({k: -v - 1 if k.endswith("running_var") else v
                       for k, v in network().state_dict().items()}),
        "negative variances",
    ),
    "teacher and student in one": (
        lambda: saved({"state_dict": {**prefixed(network().state_dict(), "student."),
                                      **prefixed(network().state_dict(), "teacher.")}}),
        "several networks .*student, teacher",
    ),
    "two of them": (
        lambda: saved({"a": network().state_dict(), "b": network().state_dict()}),
        r"several state dicts \(a, b\)",
    ),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("case", FOREIGN)
def test_what_holds_no_weights_is_called_what_it_is(case: str, tmp_path: Path) -> None:
    make, says = FOREIGN[case]
    path = tmp_path / "weights.pth"
    path.write_bytes(make())
    with pytest.raises(RecastError, match=says) as caught:
        load_backbone(f"file:{path}")
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)


def vit(width: int, layers: int, heads: int, mlp: int) -> nn.Module:
    torch.manual_seed(0)
    model = models.VisionTransformer(16, 8, layers, heads, width, mlp, num_classes=3)
    nn.init.normal_(model.heads.head.weight)
    return model.eval().requires_grad_(False)


@pytest.mark.parametrize(
    ("wrap", "metadata"),
    [
        (lambda s: s, {"num_heads": "2"}),
        (lambda s: s, {"architecture": "vit(num_heads=2)"}),
        (lambda s: {"model": s, "args": argparse.Namespace(num_heads=2)}, None),
        (lambda s: {"state_dict": s, "config": {"num_attention_heads": 2}}, None),
        (lambda s: {"state_dict": s, "hyper_parameters": {"net": {"num_heads": "2"}}}, None),
        (lambda s: {"model": s, "args": {"num_heads": 2, "decoder": {"heads": 5}}}, None),
    ],
)
def test_a_vit_has_as_many_heads_as_its_file_says(
    wrap: Callable[[State], object], metadata: dict[str, str] | None, tmp_path: Path
) -> None:
    model = vit(64, 2, 2, 96)
    path = tmp_path / ("w.pth" if metadata is None else "w.safetensors")
    if metadata is None:
        torch.save(wrap(model.state_dict()), path)
    else:
        save_file(model.state_dict(), path, metadata)
    check(load_backbone(f"file:{path}"), model)


@pytest.mark.parametrize("args", [{"heads": 5}, {"heads": 0}, {"a": {"heads": 2}, "heads": 4}])
def test_heads_that_cannot_be_meant_are_asked_for(args: dict[str, object], tmp_path: Path) -> None:
    path = tmp_path / "w.pth"
    torch.save({"model": vit(64, 2, 2, 96).state_dict(), "args": args}, path)
    with pytest.raises(RecastError, match=r"@vit\(num_heads=NUMBER\)"):
        load_backbone(f"file:{path}")


def test_heads_given_against_the_file_are_taken_and_that_is_said(tmp_path: Path) -> None:
    path = tmp_path / "w.pth"
    torch.save({"model": vit(64, 2, 2, 96).state_dict(), "args": {"num_heads": 4}}, path)
    loaded = load_backbone(f"file:{path}@vit(num_heads=2)")
    check(loaded, vit(64, 2, 2, 96))
    assert f"{path}: the file says 4 attention heads, 2 are taken" in loaded.notes


def test_a_head_of_its_own_beside_a_backbone_is_not_left_out(tmp_path: Path) -> None:
    state = prefixed(network().state_dict(), "backbone.")
    torch.save({**state, "head.fc.weight": torch.ones(2, 2)}, tmp_path / "w.pth")
    with pytest.raises(RecastError, match="no known architecture"):
        load_backbone(f"file:{tmp_path / 'w.pth'}")


def test_a_shard_and_a_folder_are_told_what_to_give(tmp_path: Path) -> None:
    for name in ("model-00001-of-00002.safetensors", "model.safetensors.index.json"):
        (tmp_path / name).write_bytes(b"{}")
        with pytest.raises(RecastError, match=f"a part of a model's weights: give hf:{tmp_path}"):
            load_backbone(f"file:{tmp_path / name}")
    with pytest.raises(RecastError, match="is a folder: give the path"):
        load_backbone(f"file:{tmp_path}")


def test_a_stem_of_three_by_three_is_said_to_be_assumed(tmp_path: Path) -> None:
    state = models.resnet18(num_classes=3).state_dict()
    state["conv1.weight"] = torch.randn(64, 3, 3, 3)
    torch.save(state, tmp_path / "w.pth")
    assert "no pooling after it is assumed" in load_backbone(f"file:{tmp_path / 'w.pth'}").notes[0]
    assert not load_backbone(f"file:{tmp_path / 'w.pth'}@resnet18(small_stem=1)").notes


def test_a_torch_file_is_known_by_its_content(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    torch.save(network().state_dict(), path)
    check(load_backbone(f"file:{path}"), network())


def test_a_published_shape_has_its_heads_and_that_is_noted(tmp_path: Path) -> None:
    model = vit(384, 12, 6, 1536)
    path = tmp_path / "w.safetensors"
    save_file(model.state_dict(), path)
    loaded = load_backbone(f"file:{path}")
    check(loaded, model)
    assert "6 attention heads inferred, as ViT-S" in loaded.notes[0]
    assert not load_backbone(f"file:{path}@vit(num_heads=6)").notes


@pytest.mark.parametrize(
    ("width", "layers", "mlp"), [(1280, 1, 5120), (64, 2, 96), (384, 12, 768), (60, 1, 60)]
)
def test_any_other_shape_is_asked_for(width: int, layers: int, mlp: int, tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    save_file(vit(width, layers, 4, mlp).state_dict(), path)
    with pytest.raises(RecastError, match=r"attention heads.*@vit\(num_heads=NUMBER\)"):
        load_backbone(f"file:{path}")


def test_vit_h_14_has_16_heads_where_64_numbers_each_would_make_20() -> None:
    with torch.device("meta"):
        state = models.vit_h_14(weights=None).state_dict()
    found = with_heads(infer_architecture(state), None, Path("w.pth"))
    assert found.options["num_heads"] == 16
