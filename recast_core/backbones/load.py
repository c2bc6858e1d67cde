"""Load a backbone by its specification."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import torch
from torch import Tensor, nn

from recast_core.backbones.architectures import (
    build,
    complete,
    infer_architecture,
    looks_like_architecture,
    parse_architecture,
    with_heads,
)
from recast_core.backbones.files import read_state
from recast_core.backbones.module import load_module
from recast_core.backbones.notes import kept, note
from recast_core.backbones.preprocess import Preprocess
from recast_core.backbones.soundness import (
    check_answers,
    check_finite,
    check_kinds,
    check_outputs,
    note_unseen,
)
from recast_core.classes import check_names
from recast_core.classifier import require_head
from recast_core.errors import RecastError

DEFAULT_BACKBONE = "glyph_resnet20"
PACKAGED = (DEFAULT_BACKBONE, "digits_resnet20")

_Loaded = tuple[nn.Module, Preprocess, tuple[str, ...]]


@dataclass(frozen=True, eq=False)
class Backbone:
    """A pretrained classifier, frozen.

    Attributes:
        model: in evaluation mode, float32, on the CPU, no parameter requiring a gradient.
        spec: what it was loaded by.
        preprocess: from uint8 images to what ``model`` takes.
        head: the dotted name of the classifier within ``model``.
        notes: what was assumed or left out, for people.
        classes: what the classifier's outputs mean, where its file or torchvision says it; else
            empty.
    """

    model: nn.Module
    spec: str
    preprocess: Preprocess
    head: str
    notes: tuple[str, ...] = ()
    classes: tuple[str, ...] = ()


def load_backbone(spec: str = DEFAULT_BACKBONE, weights: bool = True) -> Backbone:
    """Load a backbone.

    Args:
        spec: one of

            - ``glyph_resnet20``: the small network that this package carries, which saw letters;
            - ``digits_resnet20``: the same, deployed as a classifier of ten digits;
            - ``NAME`` or ``NAME:WEIGHTS``: a torchvision classifier, such as
              ``resnet34:IMAGENET1K_V1``;
            - ``NAME:none``: either of these with random weights, the same everywhere;
            - ``file:PATH`` or ``file:PATH@ARCH``: a .safetensors or torch file, whose architecture
              is inferred or given, such as ``cifar_resnet(depth=20)``;
            - ``module:PKG.MOD:FACTORY`` or ``module:PKG.MOD:FACTORY@size=28,channels=1,...``: what
              a Python callable without arguments returns; see ``load_module``;
            - ``hf:NAME`` or ``hf:FOLDER``, and ``timm:NAME``: see ``load_hf`` and ``load_timm``.
        weights: download a torchvision classifier's; where ``False`` they are random.

    Raises:
        RecastError: anything wrong with ``spec`` or with what it names.
    """
    with kept() as notes:
        model, preprocess, classes = _load(spec, weights)
    model = model.float().eval().requires_grad_(False)
    check_finite(model, spec)
    head = require_head(
        model,
        f"backbone {spec!r}",
        "choose another, or let a module: factory return the logits of a Linear layer",
    )
    check_outputs(model, head, classes, spec)
    with kept() as doubts:
        if spec.startswith(("file:", "module:", "hf:", "timm:")) and weights:
            check_answers(model, preprocess, spec)
    return Backbone(model, spec, preprocess, head, (*notes, *doubts), classes)


def _load(spec: str, weights: bool) -> _Loaded:
    kind, _, rest = spec.partition(":")
    if kind in PACKAGED and rest.lower() in ("", "none"):
        packaged = resources.files("recast_core.backbones") / "weights" / f"{kind}.safetensors"
        with resources.as_file(packaged) as path:
            return _load_file(str(path), bool(rest))
    if kind == "file":
        return _load_file(rest)
    if kind == "module":
        return *load_module(rest), ()
    if kind in ("hf", "timm"):
        from recast_core.backbones.named_models import load_hf, load_timm

        return load_hf(rest, weights) if kind == "hf" else load_timm(rest, weights)
    from recast_core.backbones.torchvision_models import load_torchvision

    return load_torchvision(kind, rest, (*PACKAGED, "file", "module", "hf", "timm"), weights)


def _load_file(rest: str, random: bool = False) -> _Loaded:
    """The model in a file, or one like it with random weights."""
    if not rest.strip():
        raise RecastError("file: names no file: give the path of the weights, file:PATH")
    name, at, architecture = rest.rpartition("@")
    # A path may itself hold an @.
    explicit = bool(at) and not Path(rest).is_file() and looks_like_architecture(architecture)
    path = Path(name if explicit else rest).expanduser()
    state, metadata = read_state(path)
    if "recast.bank" in metadata:
        raise RecastError(
            f"{path} is a template bank, not the weights of a network: give the backbone that it "
            "was made of, and the bank with --bank"
        )
    stored = metadata.get("architecture", "")
    if explicit:
        found = complete(parse_architecture(architecture), state)
    elif looks_like_architecture(stored):
        found = complete(parse_architecture(stored), state)
    else:
        try:
            found = infer_architecture(state)
        except RecastError as error:
            raise RecastError(f"{path}: {error}") from error
        if found.options.get("small_stem"):
            note(
                f"{path}: a first convolution of 3 x 3 with stride 1 and no pooling after it is "
                "assumed; if yours differs, build the model with module:pkg.mod:factory"
            )
    found = with_heads(found, metadata.get("num_heads"), path)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model, size = build(found)
    if not random:
        _fill(model, state, f"{path} as {found}")
        note_unseen(model, path)
    return model, _stored_preprocess(metadata, size, path), _stored_classes(metadata, path)


def _fill(model: nn.Module, state: Mapping[str, Tensor], what: str) -> None:
    check_kinds(model, state, what)
    # fp16 files must not round what float32 models compute: values are copied into float32.
    try:
        problems = model.load_state_dict(state, strict=False)
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1].strip()
        raise RecastError(
            f"weights do not fit: {what} ({reason}): name the architecture as file:PATH@ARCH"
        ) from error
    # Files older than PyTorch 0.4.1 lack the counter, which evaluation does not read.
    missing = [key for key in problems.missing_keys if not key.endswith("num_batches_tracked")]
    if missing or problems.unexpected_keys:
        odd = (missing + problems.unexpected_keys)[0]
        raise RecastError(
            f"weights do not fit: {what} ({len(missing)} tensors missing, "
            f"{len(problems.unexpected_keys)} too many, such as {odd}): "
            "name the architecture as file:PATH@ARCH"
        )


def _stored_preprocess(metadata: Mapping[str, str], size: int, path: Path) -> Preprocess:
    """What the file's metadata say (``size``, and ``mean`` and ``std`` as ``r,g,b``), or ImageNet.

    ``experiments.studies.pretrain_glyphs`` writes them.
    """
    try:
        default = Preprocess(int(metadata.get("size", size)))
        if "mean" not in metadata and "std" not in metadata:
            return default
        mean, std = (tuple(map(float, metadata.get(k, "").split(","))) for k in ("mean", "std"))
        return Preprocess(default.size, mean, std)
    except ValueError as error:
        raise RecastError(
            f"cannot read size, mean or std in the metadata of {path} ({error}): save it again"
        ) from error


def _stored_classes(metadata: Mapping[str, str], path: Path) -> tuple[str, ...]:
    """The class names in the file's metadata: ``class_names``, a JSON list."""
    try:
        names = json.loads(metadata.get("class_names", "[]"))
    except (ValueError, RecursionError):
        names = None
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise RecastError(f"cannot read class_names in the metadata of {path}: save it again")
    return check_names(names, f"class_names of {path}") if names else ()
