"""LoRA-XS: a small square core between frozen subspaces of each weight."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from recast_core.methods.base import MethodModel
from recast_core.methods.edits import Edits, taken_apart
from recast_core.methods.parts import ParameterPart
from recast_core.methods.ranked import Ranked
from recast_core.methods.subspace import Core, checked_rank
from recast_core.methods.weights import Site, weight_sites


class OwnCore(Core):
    """A core that is trained outright.

    Attributes:
        numbers: C, float32 ``[blocks, r, r]``, zero at the start.
    """

    def __init__(self, site: Site, rank: int) -> None:
        super().__init__(site, rank)
        self.numbers = nn.Parameter(torch.zeros(site.blocks, rank, rank))

    def core(self) -> Tensor:
        """See ``Core``."""
        return self.numbers


@dataclass(frozen=True)
class LoraXs(Ranked):
    """``W + s L C R`` with r x r numbers a weight (after LoRA-XS, Balazy et al., 2024).

    The frame is of about the leading r singular directions, see ``subspace.frames``; a packed
    query, key and value has a core each.
    """

    name: ClassVar[str] = "lora-xs"
    learning_rate: ClassVar[float] = 1e-2

    def prepare(self, model: nn.Module) -> MethodModel:
        """See ``Method``."""
        net = taken_apart(model)
        edits = Edits(net.backbone)
        parameters: dict[str, nn.Parameter] = {}
        for site in list(weight_sites(net.backbone, self.target, self.name)):
            core = OwnCore(site, checked_rank(site, self.rank, self.name))
            core.to(site.weight.device)
            edits.transform(site.path, site.tensor, core)
            parameters[f"{site.name}.core"] = core.numbers
        return MethodModel(self.name, net, edits, [ParameterPart(parameters)])
