"""Levenberg-Marquardt on the coefficients: few enough that their whole Jacobian is cheap."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.func import functional_call, jvp, vmap
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from recast_core.held_out import split_held_out
from recast_core.model import RecastModel
from recast_core.objective import _ridge_scores

_BATCH = 64
_CHUNK = 8
_FIRST_DAMPING = 1e-2
_TRIALS = 5


class _Features(nn.Module):
    def __init__(self, net: RecastModel) -> None:
        super().__init__()
        self.net = net

    def forward(self, images: Tensor) -> Tensor:
        return self.net.features(images)


def levenberg_marquardt(
    net: RecastModel, images: Tensor, labels: Tensor, classes: int, *, steps: int, seed: int
) -> float:
    """Minimise the squared residuals of the split-ridge scores over the coefficients.

    The residuals ``r(c)`` are those of one half of the images under the ridge head of the other
    half, both ways (``split_ridge_loss`` has the same scores). Each step solves
    ``(J^T J + damping diag(J^T J)) d = -J^T r`` (Marquardt 1963), with ``J`` by forward-mode
    differentiation: one pass per coefficient. A step is taken only if it lowers the squared error
    on a fifth of the images that neither ``r`` nor the head has seen; else the damping rises.
    The training residuals alone would be fitted in three steps, with whatever shift the frozen
    normalisation adds to them.

    Args:
        net: attached, without a client axis; its coefficients are left at the result.
        images: float32 ``[N, 3, H, W]``.
        labels: int64 ``[N]`` in ``[0, classes)``.
        classes: of the task.
        steps: at most this many; it ends sooner where no damping gives an acceptable one.
        seed: of the division of the images.

    Returns:
        The mean squared training residual at the end. With too few images to hold any out no step
        can be judged: the coefficients stay, and the result is NaN.
    """
    parts = split_held_out(labels, seed)
    if parts is None:
        return float("nan")
    learn, judge = parts
    seen, seen_labels, judge_labels = images[learn], labels[learn], labels[judge]
    residuals = _residuals_of(seen_labels, classes)
    wanted = F.one_hot(judge_labels, classes).float()

    def held_out(vector: Tensor) -> float:
        if not bool(torch.isfinite(vector).all()):
            return float("inf")
        net.coefficients.load(vector)
        support, query = _plain(net, seen), _plain(net, images[judge])
        scores = _ridge_scores(support, seen_labels, query, classes)
        return float((scores - wanted).square().mean())

    current = net.coefficients.sent()
    best = held_out(current)
    damping = _FIRST_DAMPING
    for _ in range(steps):
        features, tangents = _features_and_jacobian(net, seen, current)
        values = residuals(features)
        jacobian = vmap(lambda t: jvp(residuals, (features,), (t,))[1])(tangents).T.double()  # noqa: B023
        normal = jacobian.T @ jacobian
        gradient = jacobian.T @ values.double()
        scale = normal.diagonal().clamp_min(1e-12 * float(normal.diagonal().max()) + 1e-30)
        for _ in range(_TRIALS):
            step = torch.linalg.solve(normal + damping * torch.diag(scale), -gradient)
            trial = current + step.float()
            loss = held_out(trial)
            if loss < best:
                current, best, damping = trial, loss, damping / 3
                break
            damping *= 10
        else:
            break
    net.coefficients.load(current)
    with torch.no_grad():
        return float(residuals(_plain(net, seen)).square().mean())


def _residuals_of(labels: Tensor, classes: int) -> Callable[[Tensor], Tensor]:
    middle = len(labels) // 2
    targets = F.one_hot(labels, classes).float()

    def residuals(features: Tensor) -> Tensor:
        first, second = features[:middle], features[middle:]
        backward = _ridge_scores(second, labels[middle:], first, classes)
        forward = _ridge_scores(first, labels[:middle], second, classes)
        return (torch.cat([backward, forward]) - targets).flatten()

    return residuals


@torch.no_grad()
def _plain(net: RecastModel, images: Tensor) -> Tensor:
    return torch.cat([net.features(part) for part in images.split(_BATCH)])


def _features_and_jacobian(
    net: RecastModel, images: Tensor, vector: Tensor
) -> tuple[Tensor, Tensor]:
    """Features ``[N, d]`` at coefficients ``[D]``, and their derivatives ``[D, N, d]``."""
    wrapped = _Features(net)
    directions = torch.eye(len(vector), dtype=vector.dtype, device=vector.device)
    values, tangents = [], []
    # The fused attention kernels have no forward-mode derivative.
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
        for part in images.split(_BATCH):

            def features(c: Tensor, part: Tensor = part) -> Tensor:
                flat = {"net.coefficients.flat": net.coefficients._spread(c)}
                out: Tensor = functional_call(wrapped, flat, (part,))
                return out

            def push(direction: Tensor, features: Callable[[Tensor], Tensor] = features) -> Tensor:
                tangent: Tensor = jvp(features, (vector,), (direction,))[1]
                return tangent

            values.append(features(vector))
            tangents.append(vmap(push, chunk_size=_CHUNK)(directions))
    return torch.cat(values), torch.cat(tangents, dim=1)
