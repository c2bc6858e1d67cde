"""A trained linear head that never leaves its client."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from protos import recast_v1_pb2 as pb
from recast_core.heads.base import ABSENT, StayingHead, check_features, frozen_linear, spread

# Of the squared weights on features of unit variance, a mean over examples.
DECAY = 1e-3
STEPS = 100


def logistic_head(
    features: Tensor, labels: Tensor, classes: int, start: nn.Linear | None = None
) -> nn.Linear:
    """Multinomial logistic regression among the classes present, by L-BFGS.

    The problem is convex and nothing in it is random: the same features give the same head.

    Args:
        features: float32 ``[N, d]``.
        labels: int64 ``[N]`` in ``[0, classes)``.
        classes: C.
        start: where to begin, and what the weights are kept near; zero where ``None``.

    Returns:
        A frozen ``Linear(d, C)``. A class without examples keeps its row of ``start``, or is never
        chosen.
    """
    check_features(features, labels, classes)
    present, targets = labels.unique(return_inverse=True)
    x, deviation = features.detach().double(), features.detach().double().std(0, correction=0)
    mean, scale = x.mean(0), deviation.clamp_min(1e-6 * float(deviation.max().clamp_min(1e-30)))
    x = (x - mean) / scale
    width = features.shape[1]
    if start is None:
        origin = x.new_zeros(len(present), width + 1)
    else:
        whole_weight = start.weight.detach().to(x.device, copy=True)
        whole_bias = start.bias.detach().to(x.device, copy=True)
        weight, bias = whole_weight[present].double(), whole_bias[present].double()
        offset = (bias + weight @ mean).clamp_min(ABSENT / 100)
        origin = torch.cat([weight * scale, offset.unsqueeze(1)], 1)
    theta = origin.clone().requires_grad_(True)
    optimizer = torch.optim.LBFGS([theta], max_iter=STEPS, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        scores = x @ theta[:, :-1].T + theta[:, -1]
        away = (theta - origin)[:, :-1].square().sum()
        loss = F.cross_entropy(scores, targets) + 0.5 * DECAY * away
        loss.backward()
        return loss

    with torch.enable_grad():
        optimizer.step(closure)
    weight = theta.detach()[:, :-1] / scale
    bias = theta.detach()[:, -1] - weight @ mean
    if start is not None:
        whole_weight[present], whole_bias[present] = weight.float(), bias.float()
        return frozen_linear(whole_weight, whole_bias)
    return frozen_linear(spread(weight, present, classes), spread(bias, present, classes, ABSENT))


@dataclass(frozen=True)
class LocalLinear(StayingHead):
    """A linear head trained by gradient descent, as in the paper, and kept; nothing is sent.

    ``fit`` gives it on fixed features. To train it together with a method's parameters, hand the
    result to ``recast_core.methods.train`` as ``head``.
    """

    name: ClassVar[str] = "linear"
    code: ClassVar[int] = pb.HEAD_LINEAR

    def fit(self, features: Tensor, labels: Tensor, classes: int) -> nn.Linear:
        """See ``HeadKind``."""
        return logistic_head(features, labels, classes)
