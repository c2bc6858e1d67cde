"""The ridge head: a linear classifier in closed form."""

from __future__ import annotations

import torch
from torch import Tensor, nn

# The penalty is relative to the mean squared feature, so that it means the same for any backbone.
PENALTIES = (1e-3, 1e-2, 1e-1, 1.0, 10.0)


def ridge_head(features: Tensor, labels: Tensor, classes: int) -> nn.Linear:
    """Fit a linear head to one-hot labels by ridge regression with an unpenalised intercept.

    The penalty is the one of ``PENALTIES`` with the smallest leave-one-out squared error, which the
    eigendecomposition gives without refitting, so no data are held out and none are tested on.

    Args:
        features: float32 ``[N, d]``, N >= 1.
        labels: int64 ``[N]`` in ``[0, classes)``. Classes without examples get a constant score
            below that of any class present.
        classes: C.

    Returns:
        A frozen ``Linear(d, C)`` in float32.
    """
    present, columns = labels.unique(return_inverse=True)
    targets = nn.functional.one_hot(columns, len(present)).double()
    x = features.double()
    mean_x, mean_y = x.mean(0), targets.mean(0)
    x, y = x - mean_x, targets - mean_y
    # x = U diag(s) V^T through the smaller Gram matrix: N x N for few images, d x d for many.
    u, s, v = _thin_svd(x)
    projected = u.T @ y
    power = x.square().sum(1).mean().clamp_min(1e-12)
    best, best_error = PENALTIES[0], float("inf")
    for penalty in PENALTIES:
        shrink = s.square() / (s.square() + penalty * power)
        fitted = u @ (shrink.unsqueeze(1) * projected)
        leverage = u.square() @ shrink + 1.0 / len(x)
        error = float(((y - fitted) / (1 - leverage).clamp_min(1e-6).unsqueeze(1)).square().mean())
        if error < best_error:
            best, best_error = penalty, error
    weight = v @ ((s / (s.square() + best * power)).unsqueeze(1) * projected)
    bias = mean_y - mean_x @ weight
    head = nn.Linear(features.shape[1], classes, device=features.device)
    with torch.no_grad():
        head.weight.zero_()
        head.bias.fill_(-1e4)
        head.weight[present] = weight.T.float()
        head.bias[present] = bias.float()
    return head.requires_grad_(False)


def _thin_svd(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    small = x @ x.T if x.shape[0] <= x.shape[1] else x.T @ x
    values, vectors = torch.linalg.eigh(small)
    keep = values > values[-1].clamp_min(1e-30) * 1e-12
    s, vectors = values[keep].sqrt(), vectors[:, keep]
    if x.shape[0] <= x.shape[1]:
        return vectors, s, x.T @ (vectors / s)
    return x @ (vectors / s), s, vectors
