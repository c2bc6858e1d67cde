"""Target layers: frozen modules whose weight is recombined from templates at every forward."""

from recast_core.layers.base import Slot, TargetLayer, Templates
from recast_core.layers.conv import RecastConv2d
from recast_core.layers.exposed import ReadWhileTracedError, traced
from recast_core.layers.linear import RecastLinear
from recast_core.layers.make import make_layer
from recast_core.layers.multihead import RecastMultiheadAttention
from recast_core.layers.norm import RecastBatchNorm2d, RecastLayerNorm
from recast_core.layers.replaceable import check_replaceable, has_hooks, why_not

__all__ = [
    "ReadWhileTracedError",
    "RecastBatchNorm2d",
    "RecastConv2d",
    "RecastLayerNorm",
    "RecastLinear",
    "RecastMultiheadAttention",
    "Slot",
    "TargetLayer",
    "Templates",
    "check_replaceable",
    "has_hooks",
    "make_layer",
    "traced",
    "why_not",
]
