"""AdamW for many clients in one tensor, each at a step of its own."""

from __future__ import annotations

import torch
from torch import Tensor

BETAS = (0.9, 0.999)
EPS = 1e-8


@torch.no_grad()
def adamw_step(
    parameters: Tensor,
    mean: Tensor,
    square: Tensor,
    gradient: Tensor,
    step_size: Tensor,
    root: Tensor,
    moves: Tensor,
) -> None:
    """One step of ``torch.optim.AdamW`` without weight decay (arXiv 1711.05101), in place.

    The update is elementwise, so a ``[J, P]`` tensor is J optimizers. A client that does not move
    keeps parameters, moments and step count, as one whose batch taught nothing does alone.

    Args:
        parameters: float32 ``[J, P]``.
        mean: first moments ``[J, P]``.
        square: second moments ``[J, P]``.
        gradient: ``[J, P]``; ignored where a client does not move.
        step_size: ``lr / (1 - beta1^t)`` by client, ``[J, 1]``.
        root: ``sqrt(1 - beta2^t)`` by client, ``[J, 1]``.
        moves: bool ``[J, 1]``.
    """
    # Not lerp: its vectors round once and its remainders twice, by an element's place in memory.
    new_mean = BETAS[0] * mean + (1 - BETAS[0]) * gradient
    new_square = BETAS[1] * square + (1 - BETAS[1]) * gradient * gradient
    moved = parameters - step_size * new_mean / (new_square.sqrt() / root + EPS)
    mean.copy_(torch.where(moves, new_mean, mean))
    square.copy_(torch.where(moves, new_square, square))
    parameters.copy_(torch.where(moves, moved, parameters))


def step_factors(counts: Tensor, learning_rate: float) -> tuple[Tensor, Tensor]:
    """``step_size`` and ``root`` of clients at their ``counts``-th step (from 1), float32."""
    t = counts.double().clamp_min(1)
    size = learning_rate / (1 - BETAS[0] ** t)
    return size.float(), (1 - BETAS[1] ** t).sqrt().float()
