"""Choose the target layer for a module."""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn

from recast_core.layers.base import Slot, TargetLayer
from recast_core.layers.conv import RecastConv2d
from recast_core.layers.linear import RecastLinear
from recast_core.layers.multihead import RecastMultiheadAttention
from recast_core.layers.norm import RecastBatchNorm2d, RecastLayerNorm

_LAYERS: dict[type[nn.Module], type[TargetLayer]] = {
    nn.MultiheadAttention: RecastMultiheadAttention,
    nn.Linear: RecastLinear,
    nn.Conv2d: RecastConv2d,
    nn.BatchNorm2d: RecastBatchNorm2d,
    nn.LayerNorm: RecastLayerNorm,
}


def layer_kind(module: nn.Module) -> type[nn.Module] | None:
    """The class of PyTorch that a target layer would stand for, or ``None``."""
    return next((kind for kind in _LAYERS if isinstance(module, kind)), None)


def make_layer(original: nn.Module, slots: Mapping[str, Slot]) -> TargetLayer | None:
    """The target layer for ``original``, or ``None`` for a type that cannot be recombined.

    It computes what the type computes; ``check_replaceable`` says whether the module does no more.
    """
    kind = layer_kind(original)
    return None if kind is None else _LAYERS[kind](original, slots)
