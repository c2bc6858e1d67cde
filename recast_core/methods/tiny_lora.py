"""TinyLoRA: a few numbers for a whole section of the network, spread over frozen cores."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Self

import torch
from torch import Tensor, nn

from recast_core.errors import RecastError
from recast_core.methods.base import Method, MethodModel
from recast_core.methods.edits import Edits, taken_apart
from recast_core.methods.parts import ParameterPart
from recast_core.methods.ranked import joined
from recast_core.methods.subspace import Core, checked_rank
from recast_core.methods.weights import Site, weight_sites


class SharedCore(Core):
    """A core ``sum_i v_i P_i`` whose numbers ``v`` other weights share.

    Attributes:
        projections: P, frozen, of unit entries on average: ``[u, blocks * r * r]``.
        numbers: v, float32 ``[u]``, zero at the start.
    """

    projections: Tensor

    def __init__(self, site: Site, rank: int, numbers: nn.Parameter, seed: int) -> None:
        super().__init__(site, rank)
        generator = torch.Generator().manual_seed(seed)
        drawn = torch.randn(len(numbers), site.blocks * rank * rank, generator=generator)
        self.register_buffer("projections", drawn / len(numbers) ** 0.5)
        self._size = (site.blocks, rank, rank)
        self.numbers = numbers

    def core(self) -> Tensor:
        """See ``Core``."""
        return (self.numbers @ self.projections).view(self._size)


@dataclass(frozen=True)
class TinyLora(Method):
    """``W + s L (sum_i v_i P_i) R``, v tied within a section (after TinyLoRA, Morris et al., 2026).

    ``numbers`` times ``sections`` numbers in all, however large the network.

    Attributes:
        numbers: u of a section.
        sections: runs of consecutive target weights.
        target: a preset or patterns, as in ``RecastConfig``.
        rank: of the frozen frames.
    """

    numbers: int = 12
    sections: int = 4
    target: str | tuple[str, ...] = "attn"
    rank: int = 8
    name: ClassVar[str] = "tiny-lora"
    learning_rate: ClassVar[float] = 3e-2
    foldable: ClassVar[bool] = True

    @classmethod
    def parse(cls, settings: str, target: str) -> Self:
        """``tiny-lora``, ``tiny-lora:NUMBERS``, ``…:NUMBERS:SECTIONS`` or with ``:TARGET``."""
        told = settings.split(":") if settings else []
        counts = (*told[:2], *("12", "4")[len(told[:2]) :])
        if not all(c.isascii() and c.isdigit() and 0 < int(c) < 100_000 for c in counts):
            raise RecastError(
                f"method {cls.name}:{settings} has no two counts: give NUMBERS:SECTIONS, whole "
                "numbers from 1"
            )
        return cls(int(counts[0]), int(counts[1]), ":".join(told[2:]) or target)

    @property
    def canonical(self) -> str:
        """With both counts and the target."""
        return f"{self.name}:{self.numbers}:{self.sections}:{joined(self.target)}"

    def prepare(self, model: nn.Module) -> MethodModel:
        """See ``Method``."""
        net = taken_apart(model)
        edits = Edits(net.backbone)
        found = list(weight_sites(net.backbone, self.target, self.name))
        if not 1 <= self.sections <= len(found):
            raise RecastError(
                f"{self.sections} sections of {len(found)} target weights: give 1 to {len(found)}"
            )
        device = found[0].weight.device
        shared = [nn.Parameter(torch.zeros(self.numbers)) for _ in range(self.sections)]
        for index, site in enumerate(found):
            numbers = shared[index * self.sections // len(found)]
            rank = checked_rank(site, self.rank, self.name)
            core = SharedCore(site, rank, numbers, seed=index).to(device)
            edits.transform(site.path, site.tensor, core)
        named = {f"section{index}.numbers": numbers for index, numbers in enumerate(shared)}
        return MethodModel(self.name, net, edits, [ParameterPart(named)])
