"""Find a model's target modules and divide them into groups."""

from __future__ import annotations

import difflib
import re
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase

from torch import Tensor, nn

from recast_core.config import RecastConfig
from recast_core.errors import RecastError
from recast_core.layers import check_replaceable

# Encoder blocks as torchvision, timm, Hugging Face and nn.TransformerEncoder name them; the
# in-projection of an nn.MultiheadAttention is addressed by the name of the attention module.
_ATTENTION = (
    "*attn", "*attention", "*attn.qkv", "*attention.qkv",
    *(f"*att*.{name}" for name in ("query", "key", "value", "q_proj", "k_proj", "v_proj")),
)  # fmt: skip
# Not cpb_mlp, by which Swin V2 computes position biases: no image goes through it.
_MLP = (
    *(f"{mlp}.{name}" for name in ("0", "3", "fc1", "fc2") for mlp in ("mlp", "*.mlp")),
    "*layers.*.linear1", "*layers.*.linear2", "*.intermediate.dense", "*[0-9].output.dense",
)  # fmt: skip
# Block 0 of a stage changes stride and width, so its weights differ in shape (paper, section 4).
_CONV = (
    *(f"*layer[1-9].[1-9]*.conv{i}" for i in (1, 2, 3)),
    *(f"*encoder.stages.*.layers.[1-9]*.layer.{i}.convolution" for i in (0, 1, 2)),
)
_NUMBER = re.compile(r"(?<![^.])\d+(?![^.])")  # a part of a dotted name
PRESETS: dict[str, tuple[str, ...]] = {
    "attn": _ATTENTION,
    "mlp": _MLP,
    "attn+mlp": _ATTENTION + _MLP,
    "conv": _CONV,
}


@dataclass(frozen=True)
class TargetGroup:
    """Target modules of one weight shape that will share templates.

    Attributes:
        name: unique within the model, stable across runs.
        modules: dotted module names in the order of ``model.named_modules()``.
        tensor: the name of the rewritten tensor within each module.
        shape: the shape of that tensor.
    """

    name: str
    modules: tuple[str, ...]
    tensor: str
    shape: tuple[int, ...]


def weight_name(module: nn.Module) -> str | None:
    """The name of the tensor that mimicry rewrites in ``module``, or ``None``."""
    if isinstance(module, nn.MultiheadAttention):
        return "in_proj_weight" if module.in_proj_weight is not None else None
    if isinstance(module, nn.Linear | nn.Conv2d):
        return "weight"
    return None


def patterns_of(target: str | tuple[str, ...]) -> tuple[str, ...]:
    """The module-name patterns of a preset; patterns pass through."""
    if not isinstance(target, str):
        return target
    if target in PRESETS:
        return PRESETS[target]
    names = tuple(part.strip() for part in target.split(","))
    if any(c in target for c in "*?[.") or (len(names) > 1 and not PRESETS.keys() >= {*names}):
        return names
    near = ", ".join(difflib.get_close_matches(target, PRESETS, n=1, cutoff=0.5)) or "mlp"
    raise RecastError(
        f"unknown target {target!r}: choose {', '.join(PRESETS)} (did you mean {near}?) "
        "or give module-name patterns such as 'encoder.layers.*.mlp.0'"
    )


def find_groups(model: nn.Module, config: RecastConfig) -> tuple[TargetGroup, ...]:
    """Divide the modules that ``config.target`` matches into groups, in model order.

    Raises:
        RecastError: a pattern that the caller wrote matches nothing, no preset pattern matches, a
            module does more than a target layer could do in its place, or the number of groups
            does not divide a bucket.
    """
    patterns = patterns_of(config.target)
    candidates = {
        name: module for name, module in model.named_modules() if weight_name(module) is not None
    }
    order = {name: index for index, name in enumerate(candidates)}
    buckets: dict[tuple[str, tuple[int, ...], str], list[str]] = defaultdict(list)
    taken: set[str] = set()
    for pattern in patterns:
        matched = [name for name in candidates if fnmatchcase(name, pattern)]
        if not matched and not isinstance(config.target, str):
            raise _no_match(pattern, candidates)
        for name in matched:
            if name not in taken:
                taken.add(name)
                tensor = _weight(candidates[name])
                buckets[pattern, tuple(tensor.shape), str(weight_name(candidates[name]))].append(
                    name
                )
    if not buckets:
        raise _no_match(str(config.target), candidates)
    for name in sorted(taken, key=order.__getitem__):
        check_replaceable(model, name, str(weight_name(candidates[name])))
    groups = [
        TargetGroup(
            f"{names[0]}..{names[-1]}" if len(names) > 1 else names[0], names, tensor, shape
        )
        for (_, shape, tensor), bucket in buckets.items()
        for names in _divide(bucket, config.groups or 1)
    ]
    return tuple(sorted(groups, key=lambda group: order[group.modules[0]]))


def preset_fits(model: nn.Module, preset: str) -> bool:
    """Whether a preset names a module of ``model`` whose weight mimicry could rewrite."""
    names = [name for name, module in model.named_modules() if weight_name(module) is not None]
    return any(fnmatchcase(name, pattern) for name in names for pattern in PRESETS[preset])


def _divide(names: list[str], groups: int) -> list[tuple[str, ...]]:
    count = len(names)
    if count % groups:
        several = f"the {count} layers from {names[0]!r} to {names[-1]!r}, which are of one shape"
        which = several if count > 1 else f"{names[0]!r}, the only layer of its shape"
        divisors = [str(number) for number in range(1, count + 1) if count % number == 0]
        raise RecastError(f"{groups} groups do not divide {which}: choose {' or '.join(divisors)}")
    size = count // groups
    return [tuple(names[start : start + size]) for start in range(0, len(names), size)]


def _weight(module: nn.Module) -> Tensor:
    tensor = getattr(module, str(weight_name(module)))
    assert isinstance(tensor, Tensor)
    return tensor


def _no_match(pattern: str, candidates: Mapping[str, nn.Module]) -> RecastError:
    if not candidates:
        return RecastError(
            f"target {pattern!r} matches nothing: the model has no Linear, Conv2d or "
            "MultiheadAttention module (of a quantised or scripted one give the float model)"
        )
    if pattern in PRESETS:
        fitting = [
            name
            for name, patterns in PRESETS.items()
            if any(fnmatchcase(module, each) for module in candidates for each in patterns)
        ]
        choice = f"choose {' or '.join(fitting)}" if fitting else _own_pattern(candidates)
        return RecastError(
            f"target {pattern!r}, which goes by the names of published networks, matches no module "
            f"of this backbone: {choice}"
        )
    near = difflib.get_close_matches(pattern, candidates, n=3, cutoff=0.0)
    return RecastError(f"target {pattern!r} matches no module: near names are {', '.join(near)}")


def _own_pattern(candidates: Mapping[str, nn.Module]) -> str:
    """What to write for a network of one's own: patterns that find most weights of one shape."""
    if not any(candidates):
        return "the model is a single layer, and a target is a layer within one"
    weights: dict[tuple[str, tuple[int, ...]], list[int]] = defaultdict(list)
    for name, module in candidates.items():
        tensor, starred = _weight(module), _NUMBER.sub("*", name)
        weights[starred, tuple(tensor.shape)].append(tensor.numel())
    most: dict[str, int] = defaultdict(int)
    for (starred, _), sizes in weights.items():
        if len(sizes) > 1:
            most[starred] = max(most[starred], sum(sizes))
    if not most:
        # From the middle of a large network on: its first layers are seldom like the others.
        names = [name for name in candidates if name]
        some = names[len(names) // 2 :][:3] if len(names) > 8 else names
        return (
            "give a pattern of your layers' names, with * for what differs; it has "
            f"{', '.join(some)}"
        )
    best = sorted(most, key=lambda starred: -most[starred])[:3]
    return f"give patterns of your layers' names, such as '{best[0]}'" + (
        f", or {', '.join(best[1:])}" if best[1:] else ""
    )
