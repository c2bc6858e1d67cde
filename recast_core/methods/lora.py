"""LoRA on attention (MeLo), or on any target module."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from recast_core.errors import RecastError
from recast_core.methods.base import MethodModel
from recast_core.methods.edits import Edits, taken_apart
from recast_core.methods.parts import ParameterPart
from recast_core.methods.ranked import Ranked
from recast_core.methods.weights import Site, added, weight_sites

# Of the packed rows of query, key and value: the first and the last.
_QUERY_AND_VALUE = (0, 2)


class LowRank(nn.Module):
    """``W -> W + B A``, zero at the start; for a packed projection its query and value rows.

    Attributes:
        down: A, float32 ``[blocks, r, fan_in]``.
        up: B, float32 ``[blocks, rows, r]``, zero at the start.
    """

    def __init__(self, site: Site, rank: int, seed: int) -> None:
        super().__init__()
        self.packed = site.blocks > 1
        _, rows, fan_in = site.weight.shape
        blocks = len(_QUERY_AND_VALUE) if self.packed else 1
        # Every client must start from the same A, whatever its random state.
        generator = torch.Generator().manual_seed(seed)
        uniform = torch.rand(blocks, rank, fan_in, generator=generator) * 2 - 1
        self.down = nn.Parameter(uniform / fan_in**0.5)
        self.up = nn.Parameter(torch.zeros(blocks, rows, rank))

    def forward(self, weight: Tensor) -> Tensor:
        """Add the product; a client axis of ``weight`` is broadcast over."""
        delta = self.up @ self.down
        if not self.packed:
            return added(weight, delta[0])
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
        for index, site in enumerate(list(weight_sites(net.backbone, self.target, self.name))):
            low_rank = LowRank(site, self.rank, seed=index).to(site.weight.device)
            edits.transform(site.path, site.tensor, low_rank)
            parameters |= {f"{site.name}.A": low_rank.down, f"{site.name}.B": low_rank.up}
        return MethodModel(self.name, net, edits, [ParameterPart(parameters)])
