"""A Conv2d whose weight is recombined."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recast_core.layers.base import TargetLayer, split_clients


class RecastConv2d(TargetLayer):
    """``x [rows, C_in, H, W] -> [rows, C_out, H', W']``."""

    original: nn.Conv2d

    def forward(self, x: Tensor) -> Tensor:
        """Apply the layer; with a client axis J, ``rows`` is a multiple of J."""
        weight, bias = self.tensor("weight"), self.optional("bias")
        if weight.dim() == 4:
            return self._convolve(x, weight, bias, self.original.groups)
        clients = weight.shape[0]
        if x.device.type == "cpu":
            # One convolution each: as fast there, and to the last bit what the client alone gets.
            biases = [bias] * clients if bias is None or bias.dim() == 1 else bias.unbind()
            rows = split_clients(x, clients).unbind()
            parts = zip(rows, weight.unbind(), biases, strict=True)
            return torch.cat([self._convolve(*part, self.original.groups) for part in parts])
        # Clients become channel groups of one convolution: [J, B, C, H, W] -> [B, J*C, H, W].
        stacked = split_clients(x, clients).transpose(0, 1).flatten(1, 2)
        if bias is not None and bias.dim() == 1:
            bias = bias.expand(clients, -1)
        out = self._convolve(
            stacked,
            weight.flatten(0, 1),
            None if bias is None else bias.reshape(-1),
            clients * self.original.groups,
        )
        split: Tensor = out.unflatten(1, (clients, weight.shape[1]))
        return split.transpose(0, 1).flatten(0, 1)

    def _convolve(self, x: Tensor, weight: Tensor, bias: Tensor | None, groups: int) -> Tensor:
        conv = self.original
        if conv.padding_mode != "zeros":
            x = F.pad(x, conv._reversed_padding_repeated_twice, mode=conv.padding_mode)
            return F.conv2d(x, weight, bias, conv.stride, 0, conv.dilation, groups)
        return F.conv2d(x, weight, bias, conv.stride, conv.padding, conv.dilation, groups)
