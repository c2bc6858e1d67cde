"""CLR: channel-wise linear reprogramming of convolutions' outputs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from recast_core.errors import RecastError
from recast_core.methods.base import Method, MethodModel
from recast_core.methods.edits import Edits, original, sites, taken_apart
from recast_core.methods.parts import ParameterPart

KERNEL = 3


class Reprogrammed(nn.Module):
    """``x -> depthwise(conv(x))``: each channel meets its own 3x3 kernel, the identity at first.

    Attributes:
        conv: the frozen convolution.
        depthwise: 9 numbers a channel.
    """

    def __init__(self, conv: nn.Module, channels: int) -> None:
        super().__init__()
        self.conv = conv
        self.depthwise = nn.Conv2d(
            channels, channels, KERNEL, padding=KERNEL // 2, groups=channels, bias=False
        )
        with torch.no_grad():
            self.depthwise.weight.zero_()
            self.depthwise.weight[..., KERNEL // 2, KERNEL // 2] = 1.0

    def forward(self, x: Tensor) -> Tensor:
        """``[N, C_in, H, W]`` to ``[N, C_out, H', W']``."""
        out: Tensor = self.depthwise(self.conv(x))
        return out


@dataclass(frozen=True)
class Clr(Method):
    """Train and send a depthwise 3x3 kernel after each convolution (Ge et al., ICCV 2023).

    Here after every convolution whose own kernel is larger than 1x1, its bias and normalisation
    left alone: 9 numbers an output channel. It cannot be merged into a kernel of the same size.
    """

    name: ClassVar[str] = "clr"
    learning_rate: ClassVar[float] = 1e-3

    def prepare(self, model: nn.Module) -> MethodModel:
        """See ``Method``."""
        net = taken_apart(model)
        edits = Edits(net.backbone)
        parameters: dict[str, nn.Parameter] = {}
        for name, path, module in list(sites(net.backbone)):
            conv = original(module)
            if isinstance(conv, nn.Conv2d) and max(conv.kernel_size) > 1:
                layer = Reprogrammed(module, conv.out_channels)
                edits.replace(path, layer.to(next(net.parameters()).device))
                parameters |= {f"{name}.kernel": p for p in layer.depthwise.parameters()}
        if not parameters:
            raise RecastError(
                "clr finds no convolution larger than 1x1 in the backbone: choose lora, "
                "adaptformer or norm-affine"
            )
        return MethodModel(self.name, net, edits, [ParameterPart(parameters)])
