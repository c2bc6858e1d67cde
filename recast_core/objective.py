"""What coefficients are trained for: features that a closed-form head generalises from."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

# Relative to the mean squared support feature, like the penalties of the ridge head.
PENALTY = 0.1
# Ridge scores lie near 0 and 1; cross-entropy wants logits of a few units.
LOGIT_SCALE = 8.0


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
    middle = len(labels) // 2
    halves = (features[:middle], labels[:middle]), (features[middle:], labels[middle:])
    losses = []
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
        losses.append(F.cross_entropy(logits, query_labels[known]))
    return torch.stack(losses).mean() if losses else None


def _ridge_scores(support: Tensor, labels: Tensor, query: Tensor, classes: int) -> Tensor:
    targets = F.one_hot(labels, classes).to(support.dtype)
    mean_x, mean_y = support.mean(0), targets.mean(0)
    x, y = support - mean_x, targets - mean_y
    power = x.square().sum(1).mean()
    gram = x @ x.T + PENALTY * power * torch.eye(len(x), dtype=x.dtype, device=x.device)
    dual = torch.linalg.solve(gram, y)
    scores: Tensor = (query - mean_x) @ (x.T @ dual) + mean_y
    return scores
