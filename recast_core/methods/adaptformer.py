"""AdaptFormer: a small bottleneck beside each MLP."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recast_core.errors import RecastError
from recast_core.methods.base import Method, MethodModel
from recast_core.methods.edits import Edits, original, sites, taken_apart
from recast_core.methods.parts import ParameterPart

SCALE = 0.1


class ParallelBottleneck(nn.Module):
    """``x -> mlp(x) + 0.1 up(relu(down(x)))``, ``up`` zero at the start.

    Attributes:
        mlp: the block's own MLP, frozen.
    """

    def __init__(self, mlp: nn.Module, width: int, bottleneck: int, seed: int) -> None:
        super().__init__()
        self.mlp = mlp
        generator = torch.Generator().manual_seed(seed)
        uniform = torch.rand(bottleneck, width, generator=generator) * 2 - 1
        self.down = nn.Parameter(uniform / width**0.5)
        self.down_bias = nn.Parameter(torch.zeros(bottleneck))
        self.up = nn.Parameter(torch.zeros(width, bottleneck))
        self.up_bias = nn.Parameter(torch.zeros(width))

    def forward(self, x: Tensor) -> Tensor:
        """``[..., width]`` to the same shape."""
        hidden = F.relu(F.linear(x, self.down, self.down_bias))
        out: Tensor = self.mlp(x) + SCALE * F.linear(hidden, self.up, self.up_bias)
        return out


@dataclass(frozen=True)
class AdaptFormer(Method):
    """Train and send a bottleneck parallel to each transformer MLP (Chen et al., NeurIPS 2022).

    It reads the MLP's (normalised) input and is scaled by 0.1 (their equations 4 and 5):
    2 d b + b + d numbers a block of width d. It cannot be merged: the ReLU stays.

    Attributes:
        bottleneck: b.
    """

    bottleneck: int = 64
    name: ClassVar[str] = "adaptformer"
    learning_rate: ClassVar[float] = 1e-3

    def __post_init__(self) -> None:
        if self.bottleneck < 1:
            raise RecastError(f"bottleneck is {self.bottleneck}: give at least 1")

    def prepare(self, model: nn.Module) -> MethodModel:
        """See ``Method``."""
        net = taken_apart(model)
        edits = Edits(net.backbone)
        parameters: dict[str, nn.Parameter] = {}
        for name, path, module in list(sites(net.backbone)):
            if name.rpartition(".")[2] != "mlp":
                continue
            linears = [m for m in map(original, module.modules()) if isinstance(m, nn.Linear)]
            if not linears:
                continue
            bottleneck = ParallelBottleneck(
                module, linears[0].in_features, self.bottleneck, len(parameters)
            ).to(next(net.parameters()).device)
            edits.replace(path, bottleneck)
            for tensor in ("down", "down_bias", "up", "up_bias"):
                parameters[f"{name}.{tensor}"] = getattr(bottleneck, tensor)
        if not parameters:
            raise RecastError(
                "adaptformer finds no module named 'mlp' in the backbone: it needs a vision "
                "transformer, use clr or norm-affine for a convolutional network"
            )
        return MethodModel(self.name, net, edits, [ParameterPart(parameters)])
