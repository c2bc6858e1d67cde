"""Normalisation layers any of whose tensors are recombined, in evaluation mode."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recast_core.errors import RecastError
from recast_core.layers.base import Slot, TargetLayer, split_clients
from recast_core.layers.statistics import BatchStatistics, blended


class RecastBatchNorm2d(TargetLayer):
    """``x [rows, C, H, W]``, normalised by running statistics, whatever the mode.

    Slots may hold ``weight``, ``bias``, ``running_mean`` and ``running_var``; a combined variance
    is cut off at zero, below which coefficients can push it. Gradients reach all four. While
    ``statistics`` is on, the rows' own mean and variance take the place of the running ones.

    Attributes:
        statistics: shared with the model's other BatchNorms; ``None`` where none was given.

    Raises:
        RecastError: the original has no running statistics.
    """

    original: nn.BatchNorm2d

    def __init__(self, original: nn.BatchNorm2d, slots: Mapping[str, Slot]) -> None:
        if original.running_mean is None or original.running_var is None:
            raise RecastError(
                "a BatchNorm2d without running statistics cannot be recombined: build the backbone "
                "with track_running_stats=True"
            )
        super().__init__(original, slots)
        self.statistics: BatchStatistics | None = None

    def tensor(self, name: str) -> Tensor:
        """See ``TargetLayer.tensor``."""
        tensor = super().tensor(name)
        return tensor.clamp_min(0.0) if name == "running_var" else tensor

    def forward(self, x: Tensor) -> Tensor:
        """Apply the layer; with a client axis J, ``rows`` is a multiple of J."""
        if self.statistics is not None and self.statistics.counted is not None:
            return self._by_rows(x, self.statistics.counted, self.statistics.local)
        mean, variance = self.tensor("running_mean"), self.tensor("running_var")
        weight, bias, eps = self.optional("weight"), self.optional("bias"), self.original.eps
        folded = any(t is not None and t.dim() > 1 for t in (mean, variance, weight, bias))
        if not folded and not {"running_mean", "running_var"} & {*self.written}:
            return F.batch_norm(x, mean, variance, weight, bias, eps=eps)
        # F.batch_norm gives no gradient to running statistics, so the affine map is written out.
        scale = (variance + eps).rsqrt()
        scale = scale if weight is None else scale * weight
        shift = -mean * scale
        shift = shift if bias is None else shift + bias
        if not folded:
            return x * scale[:, None, None] + shift[:, None, None]
        rows = split_clients(x, shift.shape[0])
        out = rows * scale[..., None, :, None, None] + shift[..., None, :, None, None]
        return out.flatten(0, 1)

    def _by_rows(self, x: Tensor, counted: Tensor, local: Tensor | None) -> Tensor:
        """Normalise each client's block by those of its rows that count."""
        weight, bias = self.optional("weight"), self.optional("bias")
        if self.statistics is not None and self.statistics.whole:
            return F.batch_norm(x, None, None, weight, bias, training=True, eps=self.original.eps)
        if counted.dim() == 1:
            return self._normalised(x, counted, weight, bias, local)
        rows = split_clients(x, len(counted))
        if x.device.type != "cpu":
            return self._normalised(rows, counted, weight, bias, local).flatten(0, 1)
        # Client by client on a CPU, so that its last bits do not depend on the others.
        parts = []
        for index, own in enumerate(rows.unbind()):
            scale, shift = (t if t is None or t.dim() == 1 else t[index] for t in (weight, bias))
            one = None if local is None else local[index]
            if bool(counted[index].all()) and (one is None or bool(one)):
                # All rows count: the fused kernel, in half the time.
                eps = self.original.eps
                parts.append(F.batch_norm(own, None, None, scale, shift, training=True, eps=eps))
            else:
                parts.append(self._normalised(own, counted[index], scale, shift, one))
        return torch.cat(parts)

    def _normalised(
        self,
        rows: Tensor,
        counted: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        local: Tensor | None,
    ) -> Tensor:
        assert self.statistics is not None
        mean, variance = self.statistics.moments(rows, counted)
        if local is not None:
            mean = blended(mean, self.tensor("running_mean"), local)
            variance = blended(variance, self.tensor("running_var"), local)
        scale = (variance + self.original.eps).rsqrt()
        scale = scale if weight is None else scale * weight
        shift = -mean * scale
        shift = shift if bias is None else shift + bias
        return rows * scale[..., None, :, None, None] + shift[..., None, :, None, None]


class RecastLayerNorm(TargetLayer):
    """``x [rows, ..., *normalized_shape]``; slots may hold ``weight`` and ``bias``."""

    original: nn.LayerNorm

    def forward(self, x: Tensor) -> Tensor:
        """Apply the layer; with a client axis J, ``rows`` is a multiple of J."""
        shape, eps = self.original.normalized_shape, self.original.eps
        weight, bias = self.optional("weight"), self.optional("bias")
        parts = [part for part in (weight, bias) if part is not None]
        clients = next((p.shape[0] for p in parts if p.dim() > len(shape)), None)
        if clients is None:
            return F.layer_norm(x, shape, weight, bias, eps)
        out = split_clients(F.layer_norm(x, shape, eps=eps), clients)
        if weight is not None:
            out = out * self._beside(weight, out)
        if bias is not None:
            out = out + self._beside(bias, out)
        return out.flatten(0, 1)

    def _beside(self, part: Tensor, out: Tensor) -> Tensor:
        """``[J, *normalized_shape]`` as ``[J, 1, ..., *normalized_shape]``."""
        shape = self.original.normalized_shape
        if part.dim() == len(shape):
            return part
        return part.reshape(len(part), *[1] * (out.dim() - 1 - len(shape)), *shape)
