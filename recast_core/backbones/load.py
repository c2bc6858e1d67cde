"""Load a backbone by its specification."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Callable, Mapping
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
)
from recast_core.backbones.files import read_state
from recast_core.backbones.preprocess import Preprocess, triple
from recast_core.classifier import require_head
from recast_core.errors import RecastError

DEFAULT_BACKBONE = "glyph_resnet20"


@dataclass(frozen=True, eq=False)
class Backbone:
    """A pretrained classifier, frozen.

    Attributes:
        model: in evaluation mode, float32, on the CPU, no parameter requiring a gradient.
        spec: what it was loaded by.
        preprocess: from uint8 images to what ``model`` takes.
        head: the dotted name of the classifier within ``model``.
    """

    model: nn.Module
    spec: str
    preprocess: Preprocess
    head: str


def load_backbone(spec: str = DEFAULT_BACKBONE) -> Backbone:
    """Load a backbone.

    Args:
        spec: one of

            - ``glyph_resnet20``: the small network that this package carries;
            - ``NAME`` or ``NAME:WEIGHTS``: a torchvision classifier, such as
              ``resnet34:IMAGENET1K_V1``; ``NAME:none`` has random weights, the same everywhere;
            - ``file:PATH`` or ``file:PATH@ARCH``: a .safetensors or torch file, whose architecture
              is inferred or given, such as ``cifar_resnet(depth=20)``;
            - ``module:PKG.MOD:FACTORY``: what a Python callable without arguments returns.

    Raises:
        RecastError: anything wrong with ``spec`` or with what it names.
    """
    kind, _, rest = spec.partition(":")
    if spec == DEFAULT_BACKBONE:
        packaged = resources.files("recast_core.backbones") / "weights" / f"{spec}.safetensors"
        with resources.as_file(packaged) as path:
            model, preprocess = _load_file(str(path))
    elif kind == "file":
        model, preprocess = _load_file(rest)
    elif kind == "module":
        model, preprocess = _load_module(rest), Preprocess(224)
    else:
        from recast_core.backbones.torchvision_models import load_torchvision

        model, preprocess = load_torchvision(kind, rest, (DEFAULT_BACKBONE, "file", "module"))
    model = model.float().eval().requires_grad_(False)
    head = require_head(
        model,
        f"backbone {spec!r}",
        "choose another, or let a module: factory return the logits of a Linear layer",
    )
    return Backbone(model, spec, preprocess, head)


def _load_file(rest: str) -> tuple[nn.Module, Preprocess]:
    name, at, architecture = rest.rpartition("@")
    # A path may itself hold an @.
    explicit = bool(at) and not Path(rest).is_file() and looks_like_architecture(architecture)
    path = Path(name if explicit else rest).expanduser()
    state, metadata = read_state(path)
    found = (
        complete(parse_architecture(architecture), state) if explicit else infer_architecture(state)
    )
    with torch.random.fork_rng(devices=[]):
        model, size = build(found)
    _fill(model, state, f"{path} as {found}")
    return model, _stored_preprocess(metadata, size, path)


def _fill(model: nn.Module, state: Mapping[str, Tensor], what: str) -> None:
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
        if "mean" not in metadata or "std" not in metadata:
            return default
        mean, std = (triple([float(v) for v in metadata[k].split(",")]) for k in ("mean", "std"))
        return Preprocess(default.size, mean, std)
    except ValueError as error:
        raise RecastError(
            f"cannot read size, mean or std in the metadata of {path} ({error}): save it again"
        ) from error


def _load_module(rest: str) -> nn.Module:
    name, colon, attribute = rest.partition(":")
    if not colon or not name or not attribute:
        raise RecastError(f"cannot read backbone 'module:{rest}': write module:pkg.mod:factory")
    try:
        module = importlib.import_module(name)
    except ImportError as error:
        raise RecastError(
            f"cannot import {name!r} ({error}): install it or set PYTHONPATH to its folder"
        ) from error
    factory: Callable[[], object] | None = getattr(module, attribute, None)
    if not callable(factory):
        names = [key for key in vars(module) if not key.startswith("_")]
        near = ", ".join(difflib.get_close_matches(attribute, names, n=3, cutoff=0.5)) or "none"
        raise RecastError(
            f"module {name!r} has no callable {attribute!r} (near names: {near}): "
            "write module:pkg.mod:factory"
        )
    model = factory()
    if not isinstance(model, nn.Module):
        raise RecastError(
            f"{name}:{attribute} returned {type(model).__name__}: return a torch.nn.Module"
        )
    return model
