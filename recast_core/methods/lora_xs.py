"""LoRA-XS: a small square core between frozen subspaces of each weight."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Self

import torch
from torch import Tensor, nn

from recast_core.errors import RecastError
from recast_core.methods.base import Method, MethodModel
from recast_core.methods.edits import Edits, taken_apart
from recast_core.methods.parts import ParameterPart
from recast_core.methods.subspace import Core, Site, checked_rank, weight_sites


class OwnCore(Core):
    """A core that is trained outright.

    Attributes:
        numbers: C, float32 ``[blocks, r, r]``, zero at the start.
    """

    def __init__(self, site: Site, rank: int) -> None:
        super().__init__(site, rank, seed=0)
        self.numbers = nn.Parameter(torch.zeros(site.blocks, rank, rank))

    def core(self) -> Tensor:
        """See ``Core``."""
        return self.numbers


@dataclass(frozen=True)
class LoraXs(Method):
    """``W + s L C R`` with r x r numbers a weight (after LoRA-XS, Balazy et al., 2024).

    The frame is of about the leading r singular directions, see ``subspace.frames``; a packed
    query, key and value has a core each.

    Attributes:
        rank: r.
        target: a preset or patterns, as in ``RecastConfig``.
    """

    rank: int = 4
    target: str | tuple[str, ...] = "attn"
    name: ClassVar[str] = "lora-xs"
    learning_rate: ClassVar[float] = 1e-2
    foldable: ClassVar[bool] = True

    @classmethod
    def parse(cls, settings: str, target: str) -> Self:
        """``lora-xs``, ``lora-xs:RANK`` or ``lora-xs:RANK:TARGET``."""
        rank, told = rank_and_target(cls.name, settings, "4")
        return cls(rank, told or target)

    @property
    def canonical(self) -> str:
        """With rank and target."""
        target = self.target if isinstance(self.target, str) else ",".join(self.target)
        return f"{self.name}:{self.rank}:{target}"

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


def rank_and_target(name: str, settings: str, usual: str) -> tuple[int, str]:
    """What ``RANK`` or ``RANK:TARGET`` says; the usual rank and no target where it says nothing.

    Raises:
        RecastError: a rank that is no whole number from 1.
    """
    rank, _, told = (settings or usual).partition(":")
    if not (rank.isascii() and rank.isdigit() and 0 < int(rank) < 100_000):
        raise RecastError(f"method {name}:{settings} has rank {rank!r}: give a whole number from 1")
    return int(rank), told
