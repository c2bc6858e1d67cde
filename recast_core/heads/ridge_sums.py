"""One-shot federated ridge: a head from summed second moments, equal to the centralised one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from protos import recast_v1_pb2 as pb
from recast_core.errors import RecastError
from recast_core.heads.base import (
    ABSENT,
    UNIT_SCORES,
    Numbers,
    Statistics,
    TravellingHead,
    check_features,
    check_merge,
    class_sums,
    frozen_linear,
)
from recast_core.heads.ridge import PENALTIES
from recast_core.wire.messages import RefusedError


@dataclass(frozen=True)
class Moments:
    """Second moments of features and one-hot labels, about the mean, float64.

    Attributes:
        scatter: ``sum (x - m)(x - m)^T``, ``[d, d]``.
        mean: m, ``[d]``.
        sums: of each class's ``x``, ``[C, d]``.
        counts: ``[C]``.
    """

    scatter: Tensor
    mean: Tensor
    sums: Tensor
    counts: Tensor


@dataclass(frozen=True)
class RidgeSums(TravellingHead):
    """Ridge regression to one-hot labels; each client sends Gram matrix and class means once.

    Sent: the upper triangle of the Gram matrix about the client's mean, d (d + 1) / 2 numbers; the
    means of its P classes, P d; their counts and ids. Float32. Moments about the client's own mean
    do not cancel in float32 as raw sums would, and merging shifts them to the common mean. Merged,
    the head is the one that all features in one place give.
    """

    name: ClassVar[str] = "ridge"
    code: ClassVar[int] = pb.HEAD_RIDGE
    rows: ClassVar[str] = "means"
    logit_scale: ClassVar[float] = UNIT_SCORES

    def fit(self, features: Tensor, labels: Tensor, classes: int) -> nn.Linear:
        """See ``HeadKind``."""
        check_features(features, labels, classes)
        return solve_ridge(moments(features, labels, classes))

    def statistics(self, features: Tensor, labels: Tensor, classes: int) -> Statistics:
        """``gram``, ``means`` ``[P, d]``, ``counts`` and ``classes`` ``[P]``."""
        check_features(features, labels, classes)
        found = moments(features.cpu(), labels.cpu(), classes)
        present = found.counts.nonzero().squeeze(1)
        row, column = torch.triu_indices(len(found.mean), len(found.mean))
        means = found.sums[present] / found.counts[present].unsqueeze(1)
        return {
            "gram": found.scatter[row, column].float(),
            "means": means.float(),
            "counts": found.counts[present].to(torch.int32),
            "classes": present.to(torch.int16),
        }

    def merge(self, statistics: Sequence[Statistics], classes: int) -> nn.Linear:
        """See ``HeadKind``."""
        check_merge(statistics, classes)
        widths = {one["means"].shape[1] for one in statistics}
        if len(widths) > 1:
            raise RecastError(
                f"Gram matrices of widths {sorted(widths)}: all clients need one backbone"
            )
        return solve_ridge(_pooled([_received(one, classes) for one in statistics]))

    def layout(self, width: int, present: int) -> Sequence[Numbers]:
        """The upper triangle of the Gram matrix, then the means."""
        return (
            Numbers("gram", (width * (width + 1) // 2,), squares=True),
            Numbers("means", (present, width)),
        )

    def check(self, statistics: Statistics) -> None:
        """No moment of real features exceeds the geometric mean of its two variances."""
        gram, width = statistics["gram"], self.width(statistics)
        row, column = torch.triu_indices(width, width)
        diagonal = gram[row == column]
        bound = (diagonal[row] * diagonal[column]).clamp_min(0).sqrt()
        slack = 1e-3 * bound + 1e-6 * diagonal.abs().max()
        if bool((diagonal < 0).any()) or bool((gram.abs() > bound + slack).any()):
            raise RefusedError("out-of-range", "a Gram matrix that no features have")


def moments(features: Tensor, labels: Tensor, classes: int) -> Moments:
    """The moments of features ``[N, d]`` and labels ``[N]``."""
    sums, counts = class_sums(features, labels, classes)
    mean = sums.sum(0) / counts.sum()
    centred = features.double() - mean
    return Moments(centred.T @ centred, mean, sums, counts)


def solve_ridge(found: Moments, penalty: float | None = None) -> nn.Linear:
    """The ridge head of some moments, with an unpenalised intercept.

    Args:
        found: of one client or of all.
        penalty: relative to the mean squared centred feature, as in ``ridge_head``; ``None`` takes
            the one of ``PENALTIES`` with the least generalised cross-validation error (Golub,
            Heath and Wahba, 1979), which the moments alone determine.

    Returns:
        A frozen ``Linear(d, C)``; classes without examples are never chosen.
    """
    count = found.counts.sum()
    known = found.counts > 0
    share = found.counts[known] / count
    # X^T Y about the means: the class sums less what the class's count puts at the mean.
    cross = (found.sums[known] - found.counts[known].unsqueeze(1) * found.mean).T
    values, vectors = torch.linalg.eigh(found.scatter)
    values = values.clamp_min(0)
    power = (values.sum() / count).clamp_min(1e-12)
    rotated = vectors.T @ cross
    total = count * (share * (1 - share)).sum()

    def error(relative: float) -> float:
        kept = 1 / (values + relative * power)
        explained = (2 * kept - values * kept.square()).unsqueeze(1) * rotated.square()
        freedom = (values * kept).sum() + 1
        rest = (total - explained.sum()).clamp_min(0)
        return float(rest / (1 - freedom / count).clamp_min(1e-6).square())

    best = min(PENALTIES, key=error) if penalty is None else penalty
    weight = vectors @ (rotated / (values + best * power).unsqueeze(1))
    full_weight = found.sums.new_zeros(found.sums.shape)
    full_bias = found.sums.new_full(found.counts.shape, ABSENT)
    full_weight[known] = weight.T
    full_bias[known] = share - found.mean @ weight
    return frozen_linear(full_weight, full_bias)


def _received(one: Statistics, classes: int) -> Moments:
    means, counts = one["means"].double(), one["counts"].double()
    width = means.shape[1]
    if one["gram"].shape != (width * (width + 1) // 2,):
        raise RecastError(
            f"a Gram matrix of {one['gram'].numel()} numbers for features of width {width}: "
            "refuse the client"
        )
    row, column = torch.triu_indices(width, width)
    scatter = torch.zeros(width, width, dtype=torch.float64)
    scatter[row, column] = one["gram"].double()
    scatter = scatter + scatter.triu(1).T
    sums = torch.zeros(classes, width, dtype=torch.float64)
    full = torch.zeros(classes, dtype=torch.float64)
    sums[one["classes"].long()] = means * counts.unsqueeze(1)
    full[one["classes"].long()] = counts
    return Moments(scatter, sums.sum(0) / full.sum(), sums, full)


def _pooled(parts: Sequence[Moments]) -> Moments:
    counts = torch.stack([part.counts for part in parts]).sum(0)
    sums = torch.stack([part.sums for part in parts]).sum(0)
    mean = sums.sum(0) / counts.sum()
    scatter = torch.zeros_like(parts[0].scatter)
    for part in parts:
        shift = part.mean - mean
        scatter += part.scatter + part.counts.sum() * torch.outer(shift, shift)
    return Moments(scatter, mean, sums, counts)
