"""Features that a closed-form head generalises from: what trains unless something else is said."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from recast_core.objectives.base import Batch, Objective, check_labels

# Relative to the mean squared support feature, like the penalties of the ridge head.
PENALTY = 0.1
# Ridge scores lie near 0 and 1; cross-entropy wants logits of a few units.
LOGIT_SCALE = 8.0
# Features of images that are all alike differ by float32's last bits; this is their square.
_ROUNDING = 1e-12
# The logit of a class that the support lacks: exp() of it is 0, and its gradient finite.
_ABSENT = -1e9


class SplitRidge(Objective):
    """One half of a batch scored by the ridge head of the other half; the labels are the client's.

    Attributes:
        classes: of the task.
    """

    def __init__(self, classes: int) -> None:
        self.classes = classes

    def losses(self, features: Tensor, batch: Batch) -> Tensor:
        """See ``Objective``; N is even."""
        names = torch.arange(batch.classes, device=batch.own.device)
        real = (batch.own.unsqueeze(-1) == names) & batch.real.unsqueeze(-1)
        return folded_loss(*(x.unflatten(1, (2, -1)) for x in (features, batch.own, real.float())))

    def loss(self, features: Tensor, labels: Tensor) -> Tensor | None:
        """See ``Objective``."""
        return split_ridge_loss(features, labels, self.classes)

    def teaches(self, batch: Batch) -> Tensor:
        """Whether a half can judge something of the other."""
        names = torch.arange(batch.classes, device=batch.own.device)
        real = (batch.own.unsqueeze(-1) == names) & batch.real.unsqueeze(-1)
        present = real.unflatten(1, (2, -1)).any(2)
        known = (present & present.flip(1)).any(2)
        found: Tensor = ((present.sum(2) > 1) & known).any(1)
        return found

    def check(self, labels: Tensor) -> None:
        """Refuse labels that are none, of one class only, or outside ``[0, classes)``.

        Raises:
            RecastError: such labels.
        """
        check_labels(labels, self.classes)


def split_ridge_loss(features: Tensor, labels: Tensor, classes: int) -> Tensor | None:
    """Cross-entropy of one half of a batch under the ridge head of the other half, both ways.

    A head fitted on the very images that it scores leaves no gradient worth following: it fits
    them already. Solving it on one half and scoring the other, differentiably, trains features
    for images that the head has not seen (Bertinetto et al., ICLR 2019, use the same solver for
    few-shot learning).

    Args:
        features: float32 ``[N, d]``.
        labels: int64 ``[N]``, already in random order.
        classes: C.

    Returns:
        The mean loss, or ``None`` where no half has an image whose class the other half has too.
    """
    losses = [F.cross_entropy(*half) for half in split_ridge_logits(features, labels, classes)]
    return torch.stack(losses).mean() if losses else None


def split_ridge_logits(
    features: Tensor, labels: Tensor, classes: int
) -> list[tuple[Tensor, Tensor]]:
    """What the ridge head of one half says of the other, both ways, and what is right.

    Args:
        features: float32 ``[N, d]``.
        labels: int64 ``[N]``, already in random order.
        classes: C.

    Returns:
        For each half that can be judged, of its images whose class the other half has: logits
        ``[M, C]``, minus infinity for classes that the other half lacks, and int64 ``[M]``.
    """
    middle = len(labels) // 2
    halves = (features[:middle], labels[:middle]), (features[middle:], labels[middle:])
    found = []
    for (support, support_labels), (query, query_labels) in (halves, halves[::-1]):
        if len(support_labels) == 0:
            continue
        present = torch.zeros(classes, dtype=torch.bool, device=labels.device)
        present[support_labels] = True
        known = present[query_labels]
        if int(present.sum()) < 2 or not bool(known.any()):
            continue
        scores = _ridge_scores(support, support_labels, query[known], classes)
        logits = (LOGIT_SCALE * scores).masked_fill(~present, float("-inf"))
        found.append((logits, query_labels[known]))
    return found


def _ridge_scores(support: Tensor, labels: Tensor, query: Tensor, classes: int) -> Tensor:
    targets = F.one_hot(labels, classes).to(support.dtype)
    mean_x, mean_y = support.mean(0), targets.mean(0)
    x, y = support - mean_x, targets - mean_y
    power, raw = x.square().sum(1).mean(), support.square().sum(1).mean()
    gram = x @ x.T + _ridge(power, raw) * torch.eye(len(x), dtype=x.dtype, device=x.device)
    dual = torch.linalg.solve(gram, y)
    scores: Tensor = (query - mean_x) @ (x.T @ dual) + mean_y
    return scores


def _ridge(power: Tensor, raw: Tensor) -> Tensor:
    """The penalty of a half by the mean square of its features, about their mean and about 0.

    Images that are all alike leave no difference but rounding, and no matrix to invert: there 1.
    """
    return torch.where(power > _ROUNDING * raw, PENALTY * power, torch.ones_like(power))


def folded_loss(features: Tensor, labels: Tensor, real: Tensor) -> Tensor:
    """The split-ridge loss of each client's batch.

    Padding changes nothing: a padded support row is a row of zeros, whose dual coefficient is
    zero whatever the others are, and a padded query row is not counted.

    Args:
        features: float32 ``[J, 2, H, d]``, the two halves of each batch, padded to H rows.
        labels: int64 ``[J, 2, H]`` in ``[0, C)``, with class ids of the client's own.
        real: float32 one-hot labels ``[J, 2, H, C]``, zero in padded rows.

    Returns:
        ``[J]``: the loss as ``split_ridge_loss`` defines it, 0 where that is
        ``None``.
    """
    features, labels, real = _aligned(features, labels, real)
    mask = real.sum(-1)
    count = mask.sum(-1).clamp_min(1)[..., None, None]
    present = real.sum(-2) > 0
    # The support of half s is scored on the other half: flip(1) is the query.
    known = torch.flip(real * present.flip(1).unsqueeze(-2), (1,)).sum(-1)
    usable = (present.sum(-1) > 1) & (known.sum(-1) > 0)

    mean_x = (features * mask.unsqueeze(-1)).sum(-2, keepdim=True) / count
    mean_y = real.sum(-2, keepdim=True) / count
    x = (features - mean_x) * mask.unsqueeze(-1)
    y = (real - mean_y) * mask.unsqueeze(-1)
    power = x.square().sum((-2, -1)) / count[..., 0, 0]
    raw = (features * mask.unsqueeze(-1)).square().sum((-2, -1)) / count[..., 0, 0]
    ridge = torch.where(usable, _ridge(power, raw), torch.ones_like(power))
    eye = torch.eye(x.shape[-2], dtype=x.dtype, device=x.device)
    gram = x @ x.transpose(-1, -2) + ridge[..., None, None] * eye
    # Not checked: that would wait for the device, and a client that diverged is found at the end.
    dual = torch.linalg.solve_ex(gram, y).result
    query = features.flip(1) - mean_x
    scores = (query @ x.transpose(-1, -2)) @ dual + mean_y
    logits = (LOGIT_SCALE * scores).masked_fill(~present.unsqueeze(-2), _ABSENT)
    chosen = torch.log_softmax(logits, -1).gather(-1, labels.flip(1).unsqueeze(-1)).squeeze(-1)
    errors = torch.where(known > 0, -chosen, torch.zeros_like(chosen)).sum(-1)
    halves = torch.where(usable, errors / known.sum(-1).clamp_min(1), torch.zeros_like(errors))
    return halves.sum(-1) / usable.sum(-1).clamp_min(1)


def _aligned(features: Tensor, labels: Tensor, real: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The same, padded so that every client's matrices begin on a cache line.

    Products and reductions of a CPU sum in another order where a matrix begins elsewhere: without
    this a client's last bits would depend on its place in the chunk.
    """
    rows, classes = -labels.shape[2] % 8, -real.shape[3] % 4
    if not rows and not classes:
        return features, labels, real
    return (
        F.pad(features, (0, 0, 0, rows)),
        F.pad(labels, (0, rows)),
        F.pad(real, (0, classes, 0, rows)),
    )
