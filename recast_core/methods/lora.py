"""LoRA on attention (MeLo), or on any target module."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from recast_core.errors import RecastError
from recast_core.methods.base import MethodModel
from recast_core.methods.edits import Edits, matching, original, taken_apart, weight_of
from recast_core.methods.parts import ParameterPart
from recast_core.methods.ranked import Ranked
from recast_core.targets import patterns_of

# Of the packed rows of query, key and value: the first and the last.
_QUERY_AND_VALUE = (0, 2)


class LowRank(nn.Module):
    """``W -> W + B A``, zero at the start; for a packed projection its query and value rows.

    Attributes:
        down: A, float32 ``[blocks, r, fan_in]``.
        up: B, float32 ``[blocks, rows, r]``, zero at the start.
    """

    def __init__(self, shape: torch.Size, rank: int, packed: bool, seed: int) -> None:
        super().__init__()
        self.packed = packed
        blocks, rows = (len(_QUERY_AND_VALUE), shape[0] // 3) if packed else (1, shape[0])
        fan_in = math.prod(shape[1:])
        # Every client must start from the same A, whatever its random state.
        generator = torch.Generator().manual_seed(seed)
        uniform = torch.rand(blocks, rank, fan_in, generator=generator) * 2 - 1
        self.down = nn.Parameter(uniform / fan_in**0.5)
        self.up = nn.Parameter(torch.zeros(blocks, rows, rank))

    def forward(self, weight: Tensor) -> Tensor:
        """Add the product; a client axis of ``weight`` is broadcast over."""
        delta = self.up @ self.down
        if not self.packed:
            shape = weight.shape[-4:] if weight.dim() > 3 else weight.shape[-2:]
            return weight + delta[0].view(shape)
        query, key, value = weight.unflatten(-2, (3, -1)).unbind(-3)
        return torch.cat([query + delta[0], key, value + delta[1]], dim=-2)


@dataclass(frozen=True)
class Lora(Ranked):
    """Low-rank additions to target weights (Hu et al., ICLR 2022), of scale 1.

    By default to query and value of every attention layer, as MeLo does (Zhu et al., 2023):
    4 r E numbers a layer of width E. For another weight ``[O, ...]`` with fan-in I: r (I + O).
    """

    name: ClassVar[str] = "lora"
    learning_rate: ClassVar[float] = 1e-3

    def __post_init__(self) -> None:
        if self.rank < 1:
            raise RecastError(f"rank is {self.rank}: give at least 1")

    def prepare(self, model: nn.Module) -> MethodModel:
        """See ``Method``."""
        net = taken_apart(model)
        edits = Edits(net.backbone)
        parameters: dict[str, nn.Parameter] = {}
        found = matching(
            net.backbone,
            patterns_of(self.target),
            (nn.MultiheadAttention, nn.Linear, nn.Conv2d),
            f"lora finds no target {self.target!r} in the backbone: choose target='conv' for a "
            "ResNet, 'attn' or 'mlp' for a transformer",
        )
        for index, (name, path, module) in enumerate(found):
            plain = original(module)
            weight = weight_of(module)
            if weight is None:
                raise RecastError(f"attention {name!r} has no packed weight: target another")
            tensor, shape = weight
            packed = isinstance(plain, nn.MultiheadAttention) or (
                name.endswith("qkv") and shape[0] == 3 * shape[1]
            )
            low_rank = LowRank(shape, self.rank, packed, seed=index)
            low_rank.to(next(net.parameters()).device)
            edits.transform(path, tensor, low_rank)
            parameters |= {f"{name}.A": low_rank.down, f"{name}.B": low_rank.up}
        return MethodModel(self.name, net, edits, [ParameterPart(parameters)])
