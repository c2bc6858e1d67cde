"""Frozen subspaces of a weight, the same on every client: what small cores between them move."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from recast_core.errors import RecastError
from recast_core.methods.weights import Site, added

_ITERATIONS = 2


@torch.no_grad()
def frames(weight: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """Orthonormal bases of about the leading ``rank`` singular directions of each matrix.

    Two steps of subspace iteration from a seeded start (Halko et al., 2011). Unlike singular
    vectors, whose signs and, where values are close, order differ from one machine to the next,
    these vary smoothly with the weight: coordinates mean the same on all clients.

    Args:
        weight: float32 ``[blocks, rows, fan_in]``.
        rank: r, at most the smaller side.

    Returns:
        ``left`` ``[blocks, rows, r]`` and ``right`` ``[blocks, r, fan_in]``, float32.
    """
    wide = weight.double().cpu()
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(wide.shape[2], rank, generator=generator, dtype=torch.float64)
    left = _orthonormal(wide @ start)
    for _ in range(_ITERATIONS):
        left = _orthonormal(wide @ (wide.mT @ left))
    right = _orthonormal(wide.mT @ left)
    return left.float(), right.mT.contiguous().float()


def _orthonormal(columns: Tensor) -> Tensor:
    """``Q`` of the one QR factorisation whose ``R`` has a positive diagonal."""
    q, r = torch.linalg.qr(columns)
    oriented: Tensor = q * torch.where(
        torch.diagonal(r, dim1=-2, dim2=-1) < 0, -1.0, 1.0
    ).unsqueeze(-2)
    return oriented


class Core(nn.Module, ABC):
    """``W -> W + s L C R`` for a frozen frame ``L, R`` and a core ``C`` that is made of numbers.

    Attributes:
        left: ``[blocks, rows, r]``, times the scale ``s`` of each block.
        right: ``[blocks, r, fan_in]``.
    """

    left: Tensor
    right: Tensor

    def __init__(self, site: Site, rank: int) -> None:
        super().__init__()
        left, right = frames(site.weight, rank)
        # A core of ones on the diagonal is as large as the weight is within the frame.
        inside = left.mT @ site.weight.cpu() @ right.mT
        scale = inside.square().sum((1, 2), keepdim=True).sqrt() / rank**0.5
        device = site.weight.device
        self.register_buffer("left", (left * scale).to(device))
        self.register_buffer("right", right.to(device))

    @abstractmethod
    def core(self) -> Tensor:
        """The cores ``[blocks, r, r]``."""

    def forward(self, weight: Tensor) -> Tensor:
        """Add the product; a client axis of ``weight`` is broadcast over."""
        return added(weight, (self.left @ self.core() @ self.right).flatten(0, 1))


def checked_rank(site: Site, rank: int, method: str) -> int:
    """``rank``, or the smaller side of a weight that has no more.

    Raises:
        RecastError: no rank.
    """
    if rank < 1:
        raise RecastError(f"rank of {method} is {rank}: give at least 1")
    return min(rank, site.weight.shape[1], site.weight.shape[2])
