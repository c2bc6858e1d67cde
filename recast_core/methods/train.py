"""Train what a method prepared."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recast_core.errors import RecastError
from recast_core.methods.base import MethodModel
from recast_core.objective import split_ridge_loss


def train(
    model: MethodModel,
    images: Tensor,
    labels: Tensor,
    classes: int,
    *,
    head: nn.Linear | None = None,
    epochs: int = 2,
    batch: int = 32,
    learning_rate: float = 1e-3,
    seed: int = 0,
) -> float:
    """Train with AdamW, by the split-ridge objective or together with a linear head.

    Args:
        model: its trainable parameters are left at the result.
        images: float32 ``[N, 3, H, W]``, on the model's device.
        labels: int64 ``[N]`` in ``[0, classes)``.
        classes: of the task.
        head: trained jointly by cross-entropy where given (the ``linear`` and ``shared`` kinds);
            else heads are solved within the objective and nothing but the model trains.
        epochs: passes over the images.
        batch: images a step.
        learning_rate: of the model's parameters and of the head.
        seed: of the shuffling.

    Returns:
        Mean loss of the last epoch; 0 where there is nothing to train.

    Raises:
        RecastError: training ended in NaN or infinity.
    """
    parameters = [*model.trainable().values()]
    if head is not None:
        parameters += list(head.requires_grad_(True).parameters())
    if not parameters:
        return 0.0
    model.eval()
    optimizer = torch.optim.AdamW(parameters, lr=learning_rate, weight_decay=0.0)
    generator = torch.Generator().manual_seed(seed)
    losses: list[float] = []
    for _ in range(epochs):
        losses = []
        order = torch.randperm(len(labels), generator=generator)
        for chosen in torch.tensor_split(order, max(1, -(-len(labels) // batch))):
            features, wanted = model.features(images[chosen]), labels[chosen]
            loss = (
                split_ridge_loss(features, wanted, classes)
                if head is None
                else F.cross_entropy(head(features), wanted)
            )
            if loss is None:
                continue
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            losses.append(float(loss.detach()))
    if head is not None:
        head.requires_grad_(False)
    if not bool(torch.isfinite(model.sent_vector()).all()):
        raise RecastError("training ended in NaN or infinity: lower the learning rate")
    return sum(losses) / max(len(losses), 1)
