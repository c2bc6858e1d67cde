"""Cross-entropy through a linear classifier that stays as it is, or trains along."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recast_core.objectives.base import Batch, Objective


class CrossEntropy(Objective):
    """Features for a classifier of global class ids.

    Attributes:
        head: from features to logits; frozen unless it trains along.
    """

    def __init__(self, head: nn.Linear, *, trains: bool = False) -> None:
        """Use ``head``, which is left frozen, or left at the result where it ``trains``."""
        self.head = head.requires_grad_(trains)

    def losses(self, features: Tensor, batch: Batch) -> Tensor:
        """See ``Objective``."""
        logits = torch.where(batch.real.unsqueeze(-1), self.head(features), torch.zeros(()))
        labels = torch.where(batch.real, batch.labels, torch.zeros_like(batch.labels))
        errors = F.cross_entropy(logits.transpose(1, 2), labels, reduction="none")
        count = batch.real.sum(1).clamp_min(1)
        return torch.where(batch.real, errors, torch.zeros_like(errors)).sum(1) / count

    def loss(self, features: Tensor, labels: Tensor) -> Tensor | None:
        """See ``Objective``."""
        return F.cross_entropy(self.head(features), labels)

    @property
    def trained(self) -> list[nn.Parameter]:
        """See ``Objective``."""
        return [parameter for parameter in self.head.parameters() if parameter.requires_grad]
