"""The plain training loop, of one model: what every other loop must agree with."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from recast_core.objectives import Objective
from recast_core.recipe import Recipe


class Featured(Protocol):
    """A model with features, attached or prepared by a method."""

    def features(self, images: Tensor) -> Tensor:
        """``[N, d]`` of images ``[N, 3, H, W]``."""


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
        labels: int64 ``[N]``, global class ids.
        objective: what the steps lower.
        recipe: epochs and batch.
        seed: of the shuffling.

    Returns:
        The mean loss of the last epoch, 0 where no batch of it had one.
    """
    generator = torch.Generator().manual_seed(seed)
    losses: list[float] = []
    for _ in range(recipe.epochs):
        losses = []
        order = torch.randperm(len(labels), generator=generator)
        # Batches as equal as can be, so that none is a leftover of one image.
        for chosen in torch.tensor_split(order, max(1, -(-len(labels) // recipe.batch))):
            loss = objective.loss(model.features(images[chosen]), labels[chosen])
            if loss is None:
                continue
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            losses.append(float(loss.detach()))
    return sum(losses) / max(len(losses), 1)
