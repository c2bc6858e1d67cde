"""Half precision for the products, not for the coefficients."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from recast_core.layers import Slot, TargetLayer
from recast_core.model import RecastModel


class _Float32Slot(Slot):
    """A slot that combines in float32: near 1, bfloat16 cannot tell 1 from 1.003."""

    def combine(self, base: Tensor | None) -> Tensor:
        with torch.autocast(self.templates.stack.device.type, enabled=False):
            return super().combine(base)


@contextmanager
def bfloat16(net: RecastModel) -> Iterator[None]:
    """Within the block every product runs in bfloat16, but for the combination of templates."""
    layers = [module for module in net.modules() if isinstance(module, TargetLayer)]
    before = [layer.slots for layer in layers]
    for layer in layers:
        layer.slots = {
            name: _Float32Slot(s.coefficients, s.row, s.templates, s.residual)
            for name, s in layer.slots.items()
        }
    try:
        # Nothing that trains is cast; a graph of a step must not hold a cast from outside it.
        with torch.autocast(net.device.type, torch.bfloat16, cache_enabled=False):
            yield
    finally:
        for layer, slots in zip(layers, before, strict=True):
            layer.slots = slots
