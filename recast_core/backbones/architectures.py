"""Name an architecture, recognise it in a state dict, and build it."""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from recast_core.backbones.cifar_resnet import WIDTHS, CifarResNet
from recast_core.backbones.notes import note
from recast_core.choices import unknown
from recast_core.errors import RecastError

State = Mapping[str, Tensor]

_CALL = re.compile(r"\s*([a-z_]\w*)\s*(?:\((.*)\))?\s*", re.ASCII)
_OPTION = re.compile(r"\s*([a-z_]+)\s*=\s*(\d{1,6})\s*", re.ASCII)
_VIT_OPTIONS = ("image_size", "patch_size", "num_layers", "num_heads", "hidden_dim", "mlp_dim")
# Blocks per stage, and whether a block is a bottleneck.
_RESNETS: dict[str, tuple[tuple[int, ...], bool]] = {
    "resnet18": ((2, 2, 2, 2), False),
    "resnet34": ((3, 4, 6, 3), False),
    "resnet50": ((3, 4, 6, 3), True),
    "resnet101": ((3, 4, 23, 3), True),
    "resnet152": ((3, 8, 36, 3), True),
}
_OPTIONS: dict[str, tuple[str, ...]] = {
    "vit": (*_VIT_OPTIONS, "num_classes"),
    "cifar_resnet": ("depth", "num_classes"),
    **dict.fromkeys(_RESNETS, ("small_stem", "num_classes")),
}
# Width, layers and MLP width of published ViTs (Dosovitskiy et al. 2021, Touvron et al. 2021, Zhai
# et al. 2022), with the number of heads, which no tensor's shape shows.
_VITS = {
    (192, 12, 768): ("ViT-Ti", 3),
    (384, 12, 1536): ("ViT-S", 6),
    (768, 12, 3072): ("ViT-B", 12),
    (1024, 24, 4096): ("ViT-L", 16),
    (1280, 32, 5120): ("ViT-H", 16),
    (1408, 40, 6144): ("ViT-g", 16),
    (1664, 48, 8192): ("ViT-G", 16),
}
# So many tensors of the same names as others' are a network of its own, not a stage or a block.
_NETWORK = 30
_HEADS = ("heads.head.weight", "fc.weight", "linear.weight")


@dataclass(frozen=True)
class Architecture:
    """A model's shape: the name of a family and its numbers, as in ``cifar_resnet(depth=20)``."""

    name: str
    options: Mapping[str, int]

    def __str__(self) -> str:
        return f"{self.name}({','.join(f'{key}={value}' for key, value in self.options.items())})"


def looks_like_architecture(text: str) -> bool:
    """Whether ``text`` has the form ``name`` or ``name(...)``."""
    return _CALL.fullmatch(text) is not None


def parse_architecture(text: str) -> Architecture:
    """Read ``name(option=number,...)``; nothing is evaluated.

    Raises:
        RecastError: an unknown name or option, or a value that is not a whole number.
    """
    call = _CALL.fullmatch(text)
    name = call[1] if call else text
    if call is None or name not in _OPTIONS:
        raise RecastError(unknown("architecture", text, [*_OPTIONS]))
    options: dict[str, int] = {}
    for part in (call[2] or "").split(",") if (call[2] or "").strip() else []:
        option = _OPTION.fullmatch(part)
        if option is None or option[1] not in _OPTIONS[name]:
            raise RecastError(
                f"cannot read {part.strip()!r} in architecture {text!r}: "
                f"give whole numbers for {', '.join(_OPTIONS[name])}"
            )
        options[option[1]] = int(option[2])
    return Architecture(name, options)


def infer_architecture(state: State) -> Architecture:
    """Recognise an architecture by the names and shapes of its tensors.

    Raises:
        RecastError: no family that is known here has these names.
    """
    if {"conv_proj.weight", "encoder.pos_embedding", "class_token"} <= state.keys():
        return Architecture("vit", _vit_options(state))
    if {"conv1.weight", "layer4.0.conv1.weight", "fc.weight"} <= state.keys():
        return _infer_resnet(state)
    if {"conv1.weight", "layer3.0.conv1.weight", "linear.weight"} <= state.keys():
        blocks = {_count(state, f"layer{stage}.") for stage in (1, 2, 3)}
        if len(blocks) == 1 and state["linear.weight"].shape[1] == WIDTHS[-1]:
            return Architecture("cifar_resnet", {"depth": 6 * blocks.pop() + 2, **_classes(state)})
    if len(twins := _twins(state)) > 1:
        raise RecastError(
            f"several networks are in this file, under {', '.join(twins)}: save the state_dict() "
            "of the one that is meant alone"
        )
    names = ", ".join(sorted(state)[:3]) or "none"
    raise RecastError(
        f"no known architecture has these tensors ({len(state)}: {names} ...): "
        "name one as file:PATH@ARCH, such as file:PATH@resnet34(small_stem=1), "
        "or build the model yourself with module:pkg.mod:factory"
    )


def _twins(state: State) -> list[str]:
    """The first parts of names under which the same names of tensors come again; no stages."""
    held: dict[str, set[str]] = defaultdict(set)
    for key in state:
        first, _, rest = key.partition(".")
        if not first[-1:].isdigit():
            held[first].add(rest)
    large = {first: rests for first, rests in held.items() if len(rests) >= _NETWORK}
    return [first for first, own in large.items() if list(large.values()).count(own) > 1]


def complete(explicit: Architecture, state: State) -> Architecture:
    """Fill what ``explicit`` leaves open with what the state dict shows."""
    options: Mapping[str, int] = _classes(state)
    try:
        inferred = infer_architecture(state)
    except RecastError:
        inferred = explicit
    if inferred.name == explicit.name:
        options = {**options, **inferred.options}
    return Architecture(explicit.name, {**options, **explicit.options})


def build(architecture: Architecture) -> tuple[nn.Module, int]:
    """A freshly initialised model, and the image size in pixels that it expects.

    Raises:
        RecastError: options are missing or do not fit together.
    """
    options = dict(architecture.options)
    try:
        if architecture.name == "vit":
            return _build_vit(options)
        if architecture.name == "cifar_resnet":
            return CifarResNet(options["depth"], options.get("num_classes", 10)), 32
        return _build_resnet(architecture.name, options)
    except KeyError as error:
        raise RecastError(
            f"architecture {architecture} lacks {error.args[0]}: "
            f"write {architecture.name}({error.args[0]}=NUMBER,...)"
        ) from error
    except (ValueError, RuntimeError, AssertionError, ZeroDivisionError) as error:
        reason = " ".join(str(error).split())[:200]
        raise RecastError(
            f"architecture {architecture} cannot be built ({reason}): correct its numbers"
        ) from error


def _vit_options(state: State) -> dict[str, int]:
    hidden, _, patch, _ = state["conv_proj.weight"].shape
    side = math.isqrt(state["encoder.pos_embedding"].shape[1] - 1)
    options = {
        "image_size": patch * side,
        "patch_size": patch,
        "num_layers": _count(state, "encoder.layers.encoder_layer_"),
        "hidden_dim": hidden,
        **_classes(state),
    }
    first = state.get("encoder.layers.encoder_layer_0.mlp.0.weight")
    if first is not None:
        options["mlp_dim"] = first.shape[0]
    return options


def with_heads(found: Architecture, hint: str | None, path: Path) -> Architecture:
    """A ViT with its number of attention heads, which the shapes of its tensors do not tell.

    Args:
        found: any architecture; one that is complete comes back as it is.
        hint: what the file says the number is.
        path: of the file.

    Raises:
        RecastError: neither the file tells it, nor is this the shape of a published ViT.
    """
    options = found.options
    if found.name != "vit":
        return found
    if "num_heads" in options:
        if hint is not None and hint != str(options["num_heads"]):
            note(f"{path}: the file says {hint} attention heads, {options['num_heads']} are taken")
        return found
    width, layers = options.get("hidden_dim"), options.get("num_layers")
    if hint is not None and hint.isdigit() and int(hint) and not (width or 0) % int(hint):
        return Architecture("vit", {**options, "num_heads": int(hint)})
    published = _VITS.get((width or 0, layers or 0, options.get("mlp_dim", 0)))
    if published is None:
        if width is None or layers is None:
            return found
        raise RecastError(
            f"{path} does not tell how many attention heads this ViT has (width {width}, {layers} "
            f"layers), and another number computes something else: give file:{path}"
            "@vit(num_heads=NUMBER)"
        )
    name, heads = published
    note(
        f"{path}: {heads} attention heads inferred, as {name} of this shape has; if yours has "
        f"another number, give file:{path}@vit(num_heads=NUMBER)"
    )
    return Architecture("vit", {**options, "num_heads": heads})


def _infer_resnet(state: State) -> Architecture:
    blocks = tuple(_count(state, f"layer{stage}.") for stage in (1, 2, 3, 4))
    bottleneck = "layer1.0.conv3.weight" in state
    for name, shape in _RESNETS.items():
        if shape == (blocks, bottleneck):
            small = int(state["conv1.weight"].shape[-1] == 3)
            return Architecture(name, {"small_stem": small, **_classes(state)})
    raise RecastError(
        f"no known ResNet has {blocks} {'bottleneck' if bottleneck else 'basic'} blocks: "
        "build the model yourself with module:pkg.mod:factory"
    )


def _count(state: State, prefix: str) -> int:
    """How many different numbers follow ``prefix``."""
    return len({key[len(prefix) :].split(".")[0] for key in state if key.startswith(prefix)})


def _classes(state: State) -> dict[str, int]:
    found = [state[key].shape[0] for key in _HEADS if key in state]
    return {"num_classes": found[0]} if found else {}


def _build_vit(options: dict[str, int]) -> tuple[nn.Module, int]:
    from torchvision.models import VisionTransformer

    given = {key: options[key] for key in _VIT_OPTIONS}
    model: nn.Module = VisionTransformer(**given, num_classes=options.get("num_classes", 1000))
    return model, given["image_size"]


def _build_resnet(name: str, options: dict[str, int]) -> tuple[nn.Module, int]:
    from torchvision import models

    maker: Callable[..., Any] = getattr(models, name)
    model: nn.Module = maker(weights=None, num_classes=options.get("num_classes", 1000))
    if not options.get("small_stem", 0):
        return model, 224
    model.conv1 = nn.Conv2d(3, 64, 3, 1, 1, bias=False)
    model.maxpool = nn.Identity()
    return model, 32
