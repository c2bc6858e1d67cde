"""What every objective of training does."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import NamedTuple

import torch
from torch import Tensor, nn

from recast_core.errors import RecastError


class Batch(NamedTuple):
    """What one step shows of J clients: N images of each in random order, two halves of N / 2.

    Attributes:
        labels: int64 ``[J, N]``, global class ids, -1 for an image without a label; of no meaning
            in padding.
        own: int64 ``[J, N]``, the same with ids of the client's own, in ``[0, classes)``.
        real: bool ``[J, N]``, ``False`` in padding, which may end either half.
        classes: the most that any client has.
        local: bool ``[J]``, whose BatchNorms normalise by the batch; nobody's where ``None``.
        mix: float32 ``[J, C]``, the part that each class is thought to have of a client's images;
            equal parts where ``None``.
    """

    labels: Tensor
    own: Tensor
    real: Tensor
    classes: int
    local: Tensor | None = None
    mix: Tensor | None = None

    @property
    def labelled(self) -> Tensor:
        """Which images have a label: bool ``[J, N]``."""
        return self.real & (self.labels >= 0)


class Objective(ABC):
    """What training lowers: a function of features, for one client and for many at once.

    Both forms must agree to rounding: a client trained with others then ends where it ends alone.

    Attributes:
        counts_classes: whether sums are as long as a client has classes, so that those with other
            numbers of classes may be in no batch together.
    """

    counts_classes = True

    @abstractmethod
    def losses(self, features: Tensor, batch: Batch) -> Tensor:
        """The loss of each client, ``[J]``, of float32 features ``[J, N, d]``.

        Finite and without gradient where ``batch`` teaches nothing, and never a function of
        features in padding.
        """

    def loss(self, features: Tensor, labels: Tensor) -> Tensor | None:
        """The loss of one client's features ``[N, d]`` and global class ids ``[N]``.

        Returns:
            A scalar, or ``None`` where the images teach nothing.
        """
        batch = whole_batch(labels)
        return self.losses(features[None], batch)[0] if bool(self.teaches(batch)) else None

    def teaches(self, batch: Batch) -> Tensor:
        """Whether each client's images have a loss that is worth a step: bool ``[J]``."""
        return batch.real.any(1)

    def check(self, labels: Tensor) -> None:
        """Refuse the labels ``[N]`` of a client from which nothing can be learned.

        What it says may depend on whether there are any, on the smallest and on the largest alone:
        of many clients for which these are the same one is asked for.

        Raises:
            RecastError: there are none.
        """
        if labels.numel() == 0:
            raise RecastError("no images to learn from: give this client data of the task")

    def same(self, other: Objective) -> bool:
        """Whether ``other`` is the same function, of the very tensors that this one has."""
        mine, its = vars(self), vars(other)
        return (
            type(self) is type(other)
            and mine.keys() == its.keys()
            and all(
                value is its[name] or (isinstance(value, int) and value == its[name])
                for name, value in mine.items()
            )
        )

    @property
    def trained(self) -> list[nn.Parameter]:
        """What the objective holds and trains itself; the folded loop trains no such thing."""
        return []


def whole_batch(labels: Tensor) -> Batch:
    """One client's images, of global class ids ``[N]``, without padding."""
    names, own = labels.unique(return_inverse=True)
    real = torch.ones_like(labels, dtype=torch.bool)
    return Batch(labels[None], own[None], real[None], len(names))


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
