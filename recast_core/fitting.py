"""Fit a task's coefficients on one client's images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, Protocol, TypedDict, Unpack

import torch
from torch import Tensor, nn

from recast_core.errors import RecastError
from recast_core.heads.ridge import ridge_head
from recast_core.levenberg import levenberg_marquardt
from recast_core.model import RecastModel
from recast_core.norms import NORMS, Norm, affine_parameters, norm_state, recompute
from recast_core.objective import split_ridge_loss

EVALUATION_BATCH = 256
Optimizer = Literal["adamw", "sgd", "levenberg-marquardt"]
OPTIMIZERS: tuple[Optimizer, ...] = ("adamw", "sgd", "levenberg-marquardt")
# Affine parameters of normalisation layers train at this multiple of the coefficients' rate.
_AFFINE_RATE = 0.1


class Featured(Protocol):
    """A model with features, attached or prepared by a method."""

    def features(self, images: Tensor) -> Tensor:
        """``[N, d]`` of images ``[N, 3, H, W]``."""


@dataclass(frozen=True, eq=False)
class Trained:
    """What training found.

    Attributes:
        coefficients: as they are sent, float32 ``[D]``.
        loss: mean training loss of the last epoch.
        norm: the tensors of the normalisation layers by name, where ``norm`` changed them. They
            never leave the client; ``recast_core.norms.load_norm`` puts them into a model.
    """

    coefficients: Tensor
    loss: float
    norm: Mapping[str, Tensor]


@dataclass(frozen=True, eq=False)
class Fit(Trained):
    """What training found, and a head for it.

    Attributes:
        head: a ridge head fitted on all of the client's features after training.
    """

    head: nn.Linear


class Options(TypedDict, total=False):
    """The options of ``fit_coefficients``, by its defaults where absent."""

    epochs: int
    batch: int
    learning_rate: float
    seed: int
    optimizer: Optimizer
    norm: Norm


def fit(
    net: RecastModel, images: Tensor, labels: Tensor, classes: int, **options: Unpack[Options]
) -> Fit:
    """``fit_coefficients``, then a head on the features that it left: all that a task needs.

    Args:
        net: as there.
        images: as there.
        labels: as there.
        classes: as there.
        options: as there.

    Raises:
        RecastError: as there.
    """
    found = fit_coefficients(net, images, labels, classes, **options)
    head = ridge_head(features_of(net, images), labels, classes)
    return Fit(found.coefficients, found.loss, found.norm, head)


def fit_coefficients(
    net: RecastModel,
    images: Tensor,
    labels: Tensor,
    classes: int,
    *,
    epochs: int = 2,
    batch: int = 32,
    learning_rate: float = 1e-2,
    seed: int = 0,
    optimizer: Optimizer = "adamw",
    norm: Norm = "frozen",
) -> Trained:
    """Train the coefficients from where they are.

    Each step draws ``batch`` images and scores one half by the ridge head of the other
    (``split_ridge_loss``), so what is trained is features that a closed-form head generalises
    from. Everything but the coefficients is frozen, normalisation statistics included.

    Args:
        net: attached; its coefficients are left at the result, and so are its normalisation
            layers unless they are frozen.
        images: float32 ``[N, 3, H, W]``, on the device of ``net``.
        labels: int64 ``[N]`` in ``[0, classes)``.
        classes: of the task.
        epochs: passes over the images; for Levenberg-Marquardt, steps on all of them.
        batch: images per step.
        learning_rate: 1e-2 to 3e-2 suits own-weight and orthonormal templates under AdamW.
            With K sets SGD moves their mean at ``learning_rate / K``.
        seed: of the shuffling.
        optimizer: ``adamw``, ``sgd``, or ``levenberg-marquardt`` (see ``levenberg_marquardt``),
            which has no learning rate and holds a fifth of the images out.
        norm: ``frozen``; ``affine`` trains the normalisation layers' scales and shifts as well;
            ``recompute`` first gives BatchNorms the statistics of the images, if that raises
            held-out accuracy (see ``recast_core.norms.recompute``).

    Raises:
        RecastError: no images, one class only, an option that does not exist or does not fit the
            backbone, or coefficients that diverged.
    """
    check_labels(labels, classes)
    _check_options(optimizer, norm)
    net.eval()
    changed = norm == "affine"
    if norm == "recompute":
        changed = recompute(net, images, labels, classes, seed)
    if optimizer == "levenberg-marquardt":
        loss = levenberg_marquardt(net, images, labels, classes, steps=epochs, seed=seed)
    else:
        affine = affine_parameters(net) if norm == "affine" else []
        loss = _descend(
            net, images, labels, classes, epochs, batch, learning_rate, seed, optimizer, affine
        )
    coefficients = net.coefficients.sent()
    state = norm_state(net) if changed else {}
    if not all(bool(torch.isfinite(t).all()) for t in (coefficients, *state.values())):
        raise RecastError("training ended in NaN or infinity: lower the learning rate")
    return Trained(coefficients.cpu(), loss, state)


def _check_options(optimizer: str, norm: str) -> None:
    if optimizer not in OPTIMIZERS:
        raise RecastError(f"unknown optimizer {optimizer!r}: choose {', '.join(OPTIMIZERS)}")
    if norm not in NORMS:
        raise RecastError(f"unknown norm {norm!r}: choose {', '.join(NORMS)}")
    if optimizer == "levenberg-marquardt" and norm == "affine":
        raise RecastError(
            "levenberg-marquardt trains coefficients only: use adamw or sgd with norm affine"
        )


def _descend(
    net: RecastModel,
    images: Tensor,
    labels: Tensor,
    classes: int,
    epochs: int,
    batch: int,
    learning_rate: float,
    seed: int,
    kind: Optimizer,
    affine: list[nn.Parameter],
) -> float:
    """Train by AdamW or SGD; returns the mean loss of the last epoch."""
    groups: list[dict[str, object]] = [{"params": [net.coefficients.flat]}]
    if affine:
        groups.append({"params": affine, "lr": _AFFINE_RATE * learning_rate})
    optimizer: torch.optim.Optimizer = (
        torch.optim.AdamW(groups, lr=learning_rate, weight_decay=0.0)
        if kind == "adamw"
        else torch.optim.SGD(groups, lr=learning_rate)
    )
    for parameter in affine:
        parameter.requires_grad_(True)
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
    for parameter in affine:
        parameter.requires_grad_(False)
        parameter.grad = None
    return loss_sum / max(steps, 1)


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
def features_of(net: Featured, images: Tensor) -> Tensor:
    """Features ``[N, d]`` of images ``[N, 3, H, W]``, in batches, without gradients."""
    return torch.cat([net.features(part) for part in images.split(EVALUATION_BATCH)])


def _batches(count: int, size: int, generator: torch.Generator) -> list[Tensor]:
    """A shuffled pass in batches as equal as can be, so that none is a leftover of one image."""
    order = torch.randperm(count, generator=generator)
    return list(torch.tensor_split(order, max(1, -(-count // size))))
