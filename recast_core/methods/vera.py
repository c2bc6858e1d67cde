"""VeRA: vectors that scale one random pair of matrices, shared by all weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from recast_core.methods.base import MethodModel
from recast_core.methods.edits import Edits, taken_apart
from recast_core.methods.parts import ParameterPart
from recast_core.methods.ranked import Ranked
from recast_core.methods.weights import Site, added, weight_sites

_START = 0.1


class ScaledRandom(nn.Module):
    """``W -> W + diag(b) B diag(d) A``: ``b`` zero and ``d`` 0.1 at the start.

    Attributes:
        down: A, frozen ``[r, fan_in]``.
        up: B, frozen ``[rows, r]``.
        inner: d ``[blocks, r]``.
        outer: b ``[blocks, rows]``.
    """

    down: Tensor
    up: Tensor

    def __init__(self, site: Site, down: Tensor, up: Tensor) -> None:
        super().__init__()
        _, rows, fan_in = site.weight.shape
        rank = down.shape[0]
        # As kaiming's uniform has it: a product keeps the size of what it multiplies.
        self.register_buffer("down", down[:, :fan_in] * (3 / fan_in) ** 0.5)
        self.register_buffer("up", up[:rows] * (3 / rank) ** 0.5)
        self.inner = nn.Parameter(torch.full((site.blocks, rank), _START))
        self.outer = nn.Parameter(torch.zeros(site.blocks, rows))

    def forward(self, weight: Tensor) -> Tensor:
        """Add the product; a client axis of ``weight`` is broadcast over."""
        inside = self.up * self.inner.unsqueeze(1) @ self.down
        return added(weight, (self.outer.unsqueeze(2) * inside).flatten(0, 1))


@dataclass(frozen=True)
class Vera(Ranked):
    """A scale for each output channel and for each of r random features (Kopiczko et al., 2024).

    ``rows + r`` numbers a weight; the random matrices follow from a fixed seed and never travel.
    """

    rank: int = 16
    name: ClassVar[str] = "vera"
    learning_rate: ClassVar[float] = 1e-2

    def prepare(self, model: nn.Module) -> MethodModel:
        """See ``Method``."""
        net = taken_apart(model)
        edits = Edits(net.backbone)
        found = list(weight_sites(net.backbone, self.target, self.name))
        generator = torch.Generator().manual_seed(0)
        down = _uniform(self.rank, max(s.weight.shape[2] for s in found), generator)
        up = _uniform(max(s.weight.shape[1] for s in found), self.rank, generator)
        parameters: dict[str, nn.Parameter] = {}
        for site in found:
            scaled = ScaledRandom(site, down, up).to(site.weight.device)
            edits.transform(site.path, site.tensor, scaled)
            parameters |= {f"{site.name}.d": scaled.inner, f"{site.name}.b": scaled.outer}
        return MethodModel(self.name, net, edits, [ParameterPart(parameters)])


def _uniform(rows: int, columns: int, generator: torch.Generator) -> Tensor:
    return torch.rand(rows, columns, generator=generator) * 2 - 1
