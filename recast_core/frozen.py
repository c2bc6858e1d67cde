"""Frozen statistics: a backbone's running statistics stay as they are, whatever mode is set."""

from __future__ import annotations

import copy
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn

from recast_core.errors import RecastError
from recast_core.trial import output_tensor, unwrapped

# Of these packages every module with statistics holds them in buffers of its own.
_KNOWN = ("torch.nn.", "torchvision.", "recast_core.")
# Kernels differ in their last bits; a statistic that has moved shows in the first.
_TOLERANCE = 1e-5
# Of a module's attributes: what PyTorch keeps there itself.
_REGISTERS = frozenset(nn.Module().__dict__)
_DEPTH = 3


def freeze_statistics(backbone: nn.Module) -> None:
    """Let every module with statistics of its own behave as in evaluation mode, in any mode.

    A BatchNorm in training mode normalises by the batch and writes its running statistics, and a
    spectral norm its vectors: training one task would then move every other. Modules that hold
    floating-point buffers are what can do that. ``batch_statistics`` is the way round it.
    """
    for module in _with_statistics(backbone):
        if _evaluate not in module._forward_pre_hooks.values():
            module.register_forward_pre_hook(_evaluate, prepend=True)


def freeze_moving(backbone: nn.Module, example: Tensor) -> None:
    """Freeze what only running it shows: statistics in an attribute, or written by a parent.

    A copy runs in training mode; where that moves its answers in evaluation mode, the innermost
    module of a stranger's class around what was written is frozen, until nothing moves.

    Args:
        backbone: after ``freeze_statistics``.
        example: an input that it takes.

    Raises:
        RecastError: it moves in evaluation mode too, or by what no module holds.
    """
    inner, _ = unwrapped(backbone)
    strangers = {name for name, module in inner.named_modules() if _is_strange(module)}
    if not strangers:
        return
    while written := _moved(inner, example):
        around = [name for place in written for name in _outwards(place) if name in strangers]
        if not around:
            raise RecastError(
                f"module {written[0] or type(inner).__name__!r} writes what it computes with in "
                "evaluation mode too, so that learning one task would move another: let it do "
                "that in training mode only"
            )
        strangers.remove(around[0])
        inner.get_submodule(around[0]).register_forward_pre_hook(_evaluate, prepend=True)


def _moved(model: nn.Module, example: Tensor) -> list[str]:
    """The modules that wrote something, where training mode moves the answers of a copy."""
    devices = [example.device] if example.is_cuda else []
    try:
        with torch.random.fork_rng(devices=devices), torch.no_grad():
            trained = copy.deepcopy(model).eval()
            before = _answer(trained, example)
            trained.train()
            for _ in range(2):
                trained(3 * example + 1 if example.is_floating_point() else example)
            after = _answer(trained.eval(), example)
    except Exception:  # it cannot be copied, or run in training mode: that shows nothing
        return []
    if float((before - after).abs().max()) <= _TOLERANCE * float(before.abs().max()):
        return []
    held = dict(model.named_modules())
    written = [
        name for name, module in trained.named_modules() if _differ(module, held[name])
    ]  # fmt: skip
    if not written:
        raise RecastError(
            "the model answers otherwise after it has run in training mode, by what none of its "
            "modules holds, so that learning one task would move another: keep what it counts in "
            "a buffer"
        )
    return written


def _answer(model: nn.Module, example: Tensor) -> Tensor:
    torch.manual_seed(0)  # whatever is drawn at random must be the same each time
    return output_tensor(model(example))


def _differ(module: nn.Module, other: nn.Module) -> bool:
    """Whether two modules hold other numbers, in tensors or in attributes, however deep."""
    one, two = (dict(_numbers(_own(each))) for each in (module, other))
    return one.keys() != two.keys() or any(not _equal(one[key], two[key]) for key in one)


def _own(module: nn.Module) -> dict[str, object]:
    own = {key: value for key, value in module.__dict__.items() if key not in _REGISTERS}
    return {**own, **module._parameters, **module._buffers}


def _numbers(value: object, name: str = "", depth: int = _DEPTH) -> Iterator[tuple[str, object]]:
    if isinstance(value, Tensor | np.ndarray | int | float):
        yield name, value
    elif isinstance(value, Mapping) and depth:
        for key, inner in value.items():
            yield from _numbers(inner, f"{name}.{key}", depth - 1)
    elif isinstance(value, list | tuple | deque) and depth:
        for place, inner in enumerate(value):
            yield from _numbers(inner, f"{name}.{place}", depth - 1)


def _equal(one: object, other: object) -> bool:
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        return one.shape == other.shape and bool(torch.equal(one, other))
    return bool(np.array_equal(np.asarray(one), np.asarray(other)))


def _outwards(name: str) -> Iterator[str]:
    """``a.b``, ``a``, and the whole."""
    while name:
        yield name
        name = name.rpartition(".")[0]
    yield ""


def _is_strange(module: nn.Module) -> bool:
    return not f"{type(module).__module__}.".startswith(_KNOWN)


def thaw_statistics(backbone: nn.Module) -> None:
    """Take ``freeze_statistics`` back: the mode decides again."""
    for module in backbone.modules():
        ours = [key for key, hook in module._forward_pre_hooks.items() if is_freezing(hook)]
        for key in ours:
            del module._forward_pre_hooks[key]


def is_freezing(hook: object) -> bool:
    """Whether a forward pre-hook is that of ``freeze_statistics``."""
    return hook is _evaluate


@contextmanager
def batch_statistics(backbone: nn.Module) -> Iterator[None]:
    """Within the block BatchNorms normalise by the batch and write their running statistics.

    For who owns these statistics: a task that keeps its own, or an estimate of them. Afterwards
    they are frozen again, if they were, and every mode is as before.
    """
    layers = [m for m in backbone.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    modes = [layer.training for layer in layers]
    frozen = [any(map(is_freezing, layer._forward_pre_hooks.values())) for layer in layers]
    for layer in layers:
        thaw_statistics(layer)
        layer.train()
    try:
        yield
    finally:
        for layer, mode, held in zip(layers, modes, frozen, strict=True):
            layer.train(mode)
            if held:
                freeze_statistics(layer)


def _evaluate(module: nn.Module, inputs: object) -> None:
    if module.training:
        module.eval()


def _with_statistics(backbone: nn.Module) -> Iterator[nn.Module]:
    for module in backbone.modules():
        buffers = [buffer for buffer in module._buffers.values() if buffer is not None]
        if any(torch.is_floating_point(buffer) for buffer in buffers):
            yield module
