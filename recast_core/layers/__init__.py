"""Target layers: frozen modules whose weight is recombined from templates at every forward."""

from recast_core.layers.base import Slot, TargetLayer, Templates
from recast_core.layers.conv import RecastConv2d
from recast_core.layers.linear import RecastLinear
from recast_core.layers.make import make_layer
from recast_core.layers.multihead import RecastMultiheadAttention

__all__ = [
    "RecastConv2d",
    "RecastLinear",
    "RecastMultiheadAttention",
    "Slot",
    "TargetLayer",
    "Templates",
    "make_layer",
]
