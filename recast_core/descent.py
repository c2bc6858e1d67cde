"""The plain training loop, of one model: what every other loop must agree with."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from recast_core.batches import batches
from recast_core.errors import RecastError
from recast_core.objectives import Objective
from recast_core.pulse import advance
from recast_core.recipe import Recipe


class Featured(Protocol):
    """A model with features, attached or prepared by a method."""

    def features(self, images: Tensor) -> Tensor:
        """``[N, d]`` of images ``[N, 3, H, W]``."""


def refuse_unreached(loss: Tensor) -> None:
    """Refuse a loss that no coefficient changes.

    Raises:
        RecastError: the model uses its targets' weights without a gradient.
    """
    if not loss.requires_grad:
        raise RecastError(
            "no coefficient reaches the loss, so nothing can train: the model does not use the "
            "weights of its targets, or by .data, .detach(), under no_grad or in a reentrant "
            "checkpoint; let its forward use them as they are, or choose other targets"
        )


def descend(
    model: Featured,
    optimizer: torch.optim.Optimizer,
    images: Tensor,
    labels: Tensor,
    objective: Objective,
    recipe: Recipe,
    seed: int,
) -> float:
    """Step ``optimizer`` once for each batch that teaches something.

    Args:
        model: in evaluation mode.
        optimizer: of what trains; its rate is its own.
        images: float32 ``[N, 3, H, W]``, on the device of ``model``.
        labels: int64 ``[N]``, global class ids, -1 for none.
        objective: what the steps lower.
        recipe: epochs and batch.
        seed: of the shuffling.

    Raises:
        RecastError: no coefficient reaches the loss.

    Returns:
        The mean loss of the last epoch, 0 where no batch of it had one.
    """
    losses: list[float] = []
    for epoch, rows in batches(labels, recipe, seed):
        loss = objective.loss(model.features(images[rows]), labels[rows])
        if loss is None:
            advance(len(rows))
            continue
        refuse_unreached(loss)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        if epoch == recipe.epochs - 1:
            losses.append(float(loss.detach()))
        advance(len(rows))
    return sum(losses) / max(len(losses), 1)
