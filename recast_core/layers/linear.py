"""A Linear whose weight is recombined."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from recast_core.layers.base import TargetLayer, split_clients


class RecastLinear(TargetLayer):
    """``x [rows, ..., in] -> [rows, ..., out]``."""

    def forward(self, x: Tensor) -> Tensor:
        """Apply the layer; with a client axis J, ``rows`` is a multiple of J."""
        return linear(x, self.tensor("weight"), self.optional("bias"))


def linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """``F.linear`` whose weight ``[out, in]`` may be ``[J, out, in]`` (bias ``[J, out]`` likewise).

    Folded clients share one batched product instead of J small ones.
    """
    if weight.dim() == 2:
        return F.linear(x, weight, bias)
    clients = weight.shape[0]
    rows = split_clients(x, clients).flatten(1, -2)
    if bias is None:
        product = torch.bmm(rows, weight.transpose(1, 2))
    else:
        # One kernel with the bias in it, as F.linear has: a pass over the output saved.
        shift = bias.expand(clients, -1).unsqueeze(1)
        product = torch.baddbmm(shift, rows, weight.transpose(1, 2))
    return product.reshape(*x.shape[:-1], weight.shape[1])
