"""The state dict in a checkpoint as training scripts write them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from torch import Tensor

from recast_core.backbones.notes import note
from recast_core.classes import some
from recast_core.errors import RecastError

# In this order, where a checkpoint holds several.
_WRAPPERS = (
    "state_dict", "model_state_dict", "model_state", "model", "net", "network", "module", "weights",
    "params", "backbone", "classifier", "model_ema", "ema", "ema_state_dict", "state_dict_ema",
    "params_ema", "teacher", "student",
)  # fmt: skip
# What nn.DataParallel, torch.compile, FSDP and activation checkpoints put into names, anywhere.
_WRAPPED = {"module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"}
# Of so small a part of the tensors a checkpoint may hold what is no layer: a loss, a metric.
_BESIDE = 0.1
# What profilers (thop) leave in every module.
_PROFILED = ("total_ops", "total_params")
# What counts or points to something; a network's weights are floats.
_COUNTS = (torch.int64, torch.int32, torch.bool)
_HALF = 2
# How OpenMMLab and others divide a classifier, and what a backbone holds that has one already.
_PARTS = {"backbone", "head"}
_OWN = ("fc", "linear", "head", "heads", "classifier")
_HEADS = ("num_heads", "num_attention_heads", "n_heads", "heads")
_DEPTH = 4


def unwrap(content: object, path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors by name, and what the checkpoint says besides (``num_heads``).

    Wrapping mappings are opened, prefixes that all names share are taken off, and counters are
    left out; each of these is noted.

    Raises:
        RecastError: there is no state dict, or one does not know which.
    """
    hints: dict[str, str] = {}
    opened: list[str] = []
    while isinstance(content, Mapping) and len(opened) < _DEPTH:
        hints |= _hints(content)
        inner = _inner(content, path)
        if inner is None:
            break
        opened.append(inner)
        content = content[inner]
    if not isinstance(content, Mapping) or not content:
        raise RecastError(f"{path} holds no state dict: save the model's state_dict() in it")
    state = _tensors(content, path)
    if opened:
        note(f"{path}: took the state dict under {'.'.join(opened)!r}")
    return _unprefixed(state, path), hints


def unprefixed(state: Mapping[str, Tensor], path: Path) -> dict[str, Tensor]:
    """``state`` without the prefixes that wrappers leave, and without their counters."""
    return _unprefixed(dict(state), path)


def _inner(content: Mapping[object, object], path: Path) -> str | None:
    """The key of the mapping that holds the tensors; ``None`` where ``content`` is that."""
    found = [str(key) for key, value in content.items() if _holds_tensors(value)]
    if not found:
        return None
    known = [key for key in _WRAPPERS if key in found]
    if not known and len(found) > 1:
        raise RecastError(
            f"{path} holds several state dicts ({', '.join(found)}): save the one that is meant "
            "alone"
        )
    chosen = known[0] if known else found[0]
    if len(found) > 1:
        others = ", ".join(key for key in found if key != chosen)
        note(f"{path}: of several state dicts took {chosen!r}, not {others}")
    return chosen


def _holds_tensors(value: object, depth: int = _DEPTH) -> bool:
    if not isinstance(value, Mapping) or not depth:
        return False
    if any(isinstance(inner, Tensor) and inner.dim() for inner in value.values()):
        # An optimizer counts its states by number.
        return all(isinstance(key, str) for key in value)
    named = [inner for key, inner in value.items() if key in _WRAPPERS]
    return any(_holds_tensors(inner, depth - 1) for inner in named)


def _hints(content: Mapping[object, object]) -> dict[str, str]:
    places: list[object] = [content]
    places += [content.get(key) for key in ("args", "config", "cfg", "hparams", "hyper_parameters")]
    found = [pair for place in places for pair in _numbers(place)]
    for name in _HEADS:
        values = {value for key, value in found if key == name}
        if len(values) == 1:
            return {"num_heads": values.pop()}
    return {}


def _numbers(place: object, depth: int = _DEPTH) -> Iterator[tuple[str, str]]:
    """Whole numbers by name in options, however they are nested."""
    values = place if isinstance(place, Mapping) else getattr(place, "__dict__", {})
    for key, value in values.items():
        if isinstance(value, int | str) and not isinstance(value, bool):
            if str(value).isdecimal():
                yield str(key), str(int(value))
        elif depth and not isinstance(value, Tensor) and not _holds_tensors(value):
            yield from _numbers(value, depth - 1)


def _tensors(content: Mapping[object, object], path: Path) -> dict[str, Tensor]:
    state: dict[str, Tensor] = {}
    left: list[str] = []
    for key, value in content.items():
        if isinstance(key, str) and isinstance(value, Tensor):
            if value.is_quantized or value.layout != torch.strided:
                raise RecastError(
                    f"{path} holds quantised or sparse tensors ({key}): save the float model's "
                    "state_dict()"
                )
            if value.is_meta or not (value.is_floating_point() or value.dtype in _COUNTS):
                kind = "without data (meta)" if value.is_meta else f"of {value.dtype}"
                raise RecastError(
                    f"{path} holds tensors {kind} ({key}), which are no weights: save the float "
                    "model's state_dict()"
                )
            if value.is_floating_point() and value.element_size() < _HALF:
                raise RecastError(
                    f"{path} holds {value.dtype} ({key}), which mean nothing without their scales: "
                    "save the float model's state_dict()"
                )
            if key.rpartition(".")[2] in _PROFILED:
                left.append(key)
                continue
            state[key] = value
        elif isinstance(key, str) and isinstance(value, int | float | str | bool | None):
            left.append(key)
        else:
            raise RecastError(
                f"{path} holds {key!r}, which is no tensor: save the model's state_dict() alone"
            )
    if not state:
        raise RecastError(f"{path} holds no state dict: save the model's state_dict() in it")
    if left:
        note(f"{path}: left out {some(left)}, which are no weights")
    return state


def _unprefixed(state: dict[str, Tensor], path: Path) -> dict[str, Tensor]:
    taken = ""
    while (prefix := _shared(state)) is not None:
        beside = [key for key in state if not key.startswith(prefix)]
        state = {
            key.removeprefix(prefix): tensor
            for key, tensor in state.items()
            if key.startswith(prefix)
        }
        taken += prefix
        if beside:
            note(f"{path}: left out {', '.join(beside)}, which are counters or beside the model")
    if {key.partition(".")[0] for key in state} == _PARTS:
        state = _joined(state, path)
    if taken:
        note(f"{path}: took {taken!r} off the names of its tensors")
    return _without_wrappers(state, path)


def _joined(state: dict[str, Tensor], path: Path) -> dict[str, Tensor]:
    """One network of a ``backbone`` without a classifier, and the ``head`` that it goes with."""
    found = {key.partition(".")[2]: tensor for key, tensor in state.items()}
    own = {key.split(".")[1] for key in state if key.startswith("backbone.")}
    if len(found) < len(state) or not own.isdisjoint(_OWN):
        return state
    note(f"{path}: took 'backbone.' and 'head.' off the names of its tensors")
    return found


def _without_wrappers(state: dict[str, Tensor], path: Path) -> dict[str, Tensor]:
    """Names without what wrappers of a part of the model put into their middle."""
    found: dict[str, Tensor] = {}
    names: dict[str, None] = {}
    for key, tensor in state.items():
        parts = key.split(".")
        names |= dict.fromkeys(part for part in parts if part in _WRAPPED)
        found[".".join(part for part in parts if part not in _WRAPPED)] = tensor
    if not names or len(found) < len(state):
        return state
    note(f"{path}: took {', '.join(names)} out of the names of its tensors")
    return found


def _shared(state: Mapping[str, Tensor]) -> str | None:
    """The prefix of all tensors but counters and the few that are no weights."""
    counts = Counter(key.partition(".")[0] for key in state if "." in key)
    if not counts:
        return None
    first, count = counts.most_common(1)[0]
    prefix = f"{first}."
    beside = {key: tensor for key, tensor in state.items() if not key.startswith(prefix)}
    if any(tensor.dim() > 1 for tensor in beside.values()) or count < 3:
        return None
    many = [key for key, tensor in beside.items() if tensor.dim() or "." in key]
    return prefix if len(many) <= _BESIDE * len(state) else None
