"""Frozen statistics: a backbone's running statistics stay as they are, whatever mode is set."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


def freeze_statistics(backbone: nn.Module) -> None:
    """Let every module with statistics of its own behave as in evaluation mode, in any mode.

    A BatchNorm in training mode normalises by the batch and writes its running statistics, and a
    spectral norm its vectors: training one task would then move every other. Modules that hold
    floating-point buffers are what can do that. ``batch_statistics`` is the way round it.
    """
    for module in _with_statistics(backbone):
        if _evaluate not in module._forward_pre_hooks.values():
            module.register_forward_pre_hook(_evaluate, prepend=True)


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
