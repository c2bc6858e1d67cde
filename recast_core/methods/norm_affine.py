"""The affine parameters of normalisation layers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from recast_core.errors import RecastError
from recast_core.layers import TargetLayer
from recast_core.methods.base import Method, MethodModel
from recast_core.methods.edits import Edits, original, sites, taken_apart
from recast_core.methods.parts import ParameterPart

_NORMS = (_BatchNorm, nn.LayerNorm, nn.GroupNorm)


class Offset(nn.Module):
    """``t -> t + d``, ``d`` zero at the start."""

    def __init__(self, like: Tensor) -> None:
        super().__init__()
        self.offset = nn.Parameter(torch.zeros_like(like))

    def forward(self, tensor: Tensor) -> Tensor:
        """Add the offset, broadcast over a client axis."""
        return tensor + self.offset


@dataclass(frozen=True)
class NormAffine(Method):
    """Train and send scale and shift of every BatchNorm, LayerNorm and GroupNorm.

    Two numbers a channel; statistics stay frozen.
    """

    name: ClassVar[str] = "norm-affine"
    learning_rate: ClassVar[float] = 1e-3
    foldable: ClassVar[bool] = True

    def prepare(self, model: nn.Module) -> MethodModel:
        """See ``Method``."""
        net = taken_apart(model)
        edits = Edits(net.backbone)
        parameters: dict[str, nn.Parameter] = {}
        for name, path, module in list(sites(net.backbone)):
            if not isinstance(original(module), _NORMS):
                continue
            for tensor in ("weight", "bias"):
                if isinstance(module, TargetLayer) and tensor in module.slots:
                    offset = Offset(module.slots[tensor].templates.stack[0])
                    edits.transform(path, tensor, offset)
                    parameters[f"{name}.{tensor}"] = offset.offset
                elif (parameter := getattr(original(module), tensor)) is not None:
                    edits.train(parameter)
                    parameters[f"{name}.{tensor}"] = parameter
        if not parameters:
            raise RecastError(
                "the backbone has no normalisation layer with an affine part: choose another method"
            )
        return MethodModel(self.name, net, edits, [ParameterPart(parameters)])
