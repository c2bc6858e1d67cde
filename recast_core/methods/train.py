"""Train what a method prepared."""

from __future__ import annotations

import torch
from torch import Tensor

from recast_core.descent import Featured, descend
from recast_core.errors import RecastError
from recast_core.methods.base import MethodModel
from recast_core.objectives import Objective
from recast_core.recipe import Recipe
from recast_core.statistics import ByBatch


def train(
    model: MethodModel,
    images: Tensor,
    labels: Tensor,
    objective: Objective,
    recipe: Recipe,
    seed: int = 0,
    *,
    local: bool = False,
) -> float:
    """Train with AdamW, together with whatever the objective trains itself.

    Args:
        model: its trainable parameters are left at the result.
        images: float32 ``[N, 3, H, W]``, on the model's device.
        labels: int64 ``[N]``, global class ids, -1 for none.
        objective: left frozen, at the result.
        recipe: epochs, batch and rate; a customary rate is ``Method.learning_rate``.
        seed: of the shuffling.
        local: normalise by the batch where ``recast_core.statistics`` has made that possible.

    Returns:
        Mean loss of the last epoch; 0 where there is nothing to train.

    Raises:
        RecastError: training ended in NaN or infinity.
    """
    along = objective.trained
    parameters = [*model.trainable().values(), *along]
    if not parameters:
        return 0.0
    model.eval()
    optimizer = torch.optim.AdamW(parameters, lr=recipe.learning_rate, weight_decay=0.0)
    statistics = model.net.statistics if local else None
    seen: Featured = model if statistics is None else ByBatch(model, statistics)
    loss = descend(seen, optimizer, images, labels, objective, recipe, seed)
    for parameter in along:
        parameter.requires_grad_(False)
    if not bool(torch.isfinite(model.sent_vector()).all()):
        raise RecastError("training ended in NaN or infinity: lower the learning rate")
    return loss
