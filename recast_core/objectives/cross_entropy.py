"""Cross-entropy through a classifier that stays as it is, or trains along."""

from __future__ import annotations

from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recast_core.errors import RecastError
from recast_core.objectives.base import Batch, Objective

# Of classifiers, which every client of a round asks for again.
_OUTPUTS: WeakKeyDictionary[nn.Module, int | None] = WeakKeyDictionary()


class CrossEntropy(Objective):
    """Features for a classifier of global class ids; images without a label have no part in it.

    Attributes:
        head: from features to logits; frozen unless it trains along.
    """

    counts_classes = False

    def __init__(self, head: nn.Module, *, trains: bool = False) -> None:
        """Use ``head``, which is left frozen, or left at the result where it ``trains``."""
        self.head = head.requires_grad_(trains)

    def losses(self, features: Tensor, batch: Batch) -> Tensor:
        """See ``Objective``."""
        known = batch.labelled
        # Padding may hold anything, NaN included, and must not reach the gradient.
        features = torch.where(batch.real.unsqueeze(-1), features, torch.zeros_like(features))
        labels = torch.where(known, batch.labels, torch.zeros_like(batch.labels))
        logits: Tensor = self.head(features)
        errors = F.cross_entropy(logits.transpose(1, 2), labels, reduction="none")
        count = known.sum(1).clamp_min(1)
        return torch.where(known, errors, torch.zeros_like(errors)).sum(1) / count

    def loss(self, features: Tensor, labels: Tensor) -> Tensor | None:
        """See ``Objective``."""
        known = labels >= 0
        return F.cross_entropy(self.head(features[known]), labels[known]) if known.any() else None

    def teaches(self, batch: Batch) -> Tensor:
        """Whether an image has a label."""
        return batch.labelled.any(1)

    def check(self, labels: Tensor) -> None:
        """Refuse labels that are none, or beyond the classifier's classes.

        Raises:
            RecastError: such labels.
        """
        if not bool((labels >= 0).any()):
            raise RecastError("no labelled images to learn from: label some, or use --labels 0")
        classes = outputs_of(self.head)
        if classes is not None and int(labels.max()) >= classes:
            raise RecastError(
                f"a label of {int(labels.max())} and a classifier of {classes} classes: the task's "
                "classes must be the deployed network's"
            )

    @property
    def trained(self) -> list[nn.Parameter]:
        """See ``Objective``."""
        return [parameter for parameter in self.head.parameters() if parameter.requires_grad]


def outputs_of(head: nn.Module) -> int | None:
    """How many classes a classifier that ends in a Linear tells apart; ``None`` of any other."""
    if head not in _OUTPUTS:
        linears = [module for module in head.modules() if isinstance(module, nn.Linear)]
        _OUTPUTS[head] = linears[-1].out_features if linears else None
    return _OUTPUTS[head]
