"""Fit a task's coefficients on one client's images."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from recast_core.errors import RecastError
from recast_core.heads.ridge import ridge_head
from recast_core.model import RecastModel
from recast_core.objective import split_ridge_loss

EVALUATION_BATCH = 256


@dataclass(frozen=True, eq=False)
class Fit:
    """What fitting found.

    Attributes:
        coefficients: as they are sent, float32 ``[D]``.
        head: a ridge head refitted on all of the client's features after training.
        loss: mean training loss of the last epoch.
    """

    coefficients: Tensor
    head: nn.Linear
    loss: float


def fit(
    net: RecastModel,
    images: Tensor,
    labels: Tensor,
    classes: int,
    *,
    epochs: int = 2,
    batch: int = 32,
    learning_rate: float = 1e-2,
    seed: int = 0,
) -> Fit:
    """Train the coefficients with AdamW from where they are, then refit the head.

    Each step draws ``batch`` images and scores one half by the ridge head of the other
    (``split_ridge_loss``), so what is trained is features that a closed-form head generalises
    from. Everything but the coefficients is frozen, normalisation statistics included.

    Args:
        net: attached; its coefficients are left at the result.
        images: float32 ``[N, 3, H, W]``, on the device of ``net``.
        labels: int64 ``[N]`` in ``[0, classes)``.
        classes: of the task.
        epochs: passes over the images.
        batch: images per step.
        learning_rate: 1e-2 to 3e-2 suits own-weight and orthonormal templates.
        seed: of the shuffling.

    Raises:
        RecastError: no images, one class only, or coefficients that diverged.
    """
    check_labels(labels, classes)
    net.eval()
    optimizer = torch.optim.AdamW([net.coefficients.flat], lr=learning_rate, weight_decay=0.0)
    generator = torch.Generator().manual_seed(seed)
    loss_sum, steps = 0.0, 0
    for _ in range(epochs):
        loss_sum, steps = 0.0, 0
        for chosen in _batches(len(labels), batch, generator):
            loss = split_ridge_loss(net.features(images[chosen]), labels[chosen], classes)
            if loss is None:
                continue
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            loss_sum, steps = loss_sum + float(loss.detach()), steps + 1
    coefficients = net.coefficients.sent()
    if not bool(torch.isfinite(coefficients).all()):
        raise RecastError("training ended in NaN or infinity: lower the learning rate")
    head = ridge_head(features_of(net, images), labels, classes)
    return Fit(coefficients.cpu(), head, loss_sum / max(steps, 1))


def check_labels(labels: Tensor, classes: int) -> None:
    """Refuse labels from which no classifier can be learned.

    Raises:
        RecastError: none, one class only, or a label outside ``[0, classes)``.
    """
    if labels.numel() == 0:
        raise RecastError("no images to learn from: give this client data of the task")
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= classes:
        raise RecastError(
            f"labels from {low} to {high} for {classes} classes: use global class ids"
        )
    if low == high:
        raise RecastError(
            "all images are of one class, there is nothing to tell apart: give this client images "
            "of at least two"
        )


@torch.no_grad()
def features_of(net: RecastModel, images: Tensor) -> Tensor:
    """Features ``[N, d]`` of images ``[N, 3, H, W]``, in batches, without gradients."""
    return torch.cat([net.features(part) for part in images.split(EVALUATION_BATCH)])


def _batches(count: int, size: int, generator: torch.Generator) -> list[Tensor]:
    """A shuffled pass in batches as equal as can be, so that none is a leftover of one image."""
    order = torch.randperm(count, generator=generator)
    return list(torch.tensor_split(order, max(1, -(-count // size))))
