"""Sure and diverse predictions: what can be lowered where no image has a label."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from recast_core.objectives.base import Batch, Objective


class LabelFree(Objective):
    """Mutual information of image and prediction, raised (Krause et al., NIPS 2010).

    The entropy of each prediction falls while that of their mean over the batch rises, so that
    they do not all become one class. It is Tent's objective (Wang et al., ICLR 2021) with the
    guard that SHOT (Liang et al., ICML 2020) puts beside it. A client whose images are of few
    classes has no even predictions to offer: with a label mix, what falls in place of the entropy
    of their mean is its divergence from that (see ``recast_core.label_mix``).

    Attributes:
        head: from features to logits; frozen.
        mix: float32 ``[C]``, of one client, where the batch brings none; even where ``None``.
    """

    def __init__(self, head: nn.Module, mix: Tensor | None = None) -> None:
        self.head = head.requires_grad_(False)
        self.mix = mix

    def losses(self, features: Tensor, batch: Batch) -> Tensor:
        """See ``Objective``."""
        real = batch.real.unsqueeze(-1)
        features = torch.where(real, features, torch.zeros_like(features))
        logits: Tensor = self.head(features)
        log_p = torch.log_softmax(logits, -1)
        p = log_p.exp() * real
        count = batch.real.sum(1).clamp_min(1)
        sure = -(p * log_p).sum((1, 2)) / count
        mean = p.sum(1) / count.unsqueeze(-1)
        apart = mean.clamp_min(1e-8).log()
        mix = self.mix if batch.mix is None else batch.mix
        if mix is not None:
            apart = apart - mix.to(apart.device).log()
        return sure + (mean * apart).sum(1)

    def teaches(self, batch: Batch) -> Tensor:
        """Whether there are two images, of which one can differ from the other."""
        return batch.real.sum(1) > 1


def collapsed(before: Tensor, after: Tensor) -> bool:
    """Whether predictions have come to name fewer classes than the images can account for.

    Args:
        before: int64 ``[N]``, predicted classes before training.
        after: likewise, of the same images, afterwards.

    Returns:
        Whether the perplexity of the predicted classes has fallen to less than half.
    """
    return _perplexity(after) < 0.5 * _perplexity(before)


def _perplexity(predicted: Tensor) -> float:
    share = torch.bincount(predicted).double() / max(len(predicted), 1)
    return float(torch.exp(-(share * share.clamp_min(1e-12).log()).sum()))
