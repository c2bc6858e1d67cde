"""Class means: one quantised row for each class that a client has."""

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
from recast_core.heads.quantise import quantise_rows, restore_rows
from recast_core.wire.messages import RefusedError


@dataclass(frozen=True)
class Means(TravellingHead):
    """The nearest class mean in feature space; each client sends its means and counts.

    The mean of a class over all clients is the sum of their sums over the sum of their counts, so
    a class that a client lacks weighs nothing there. A client sends, for each class that it has,
    d integers, a scale (4 B), a count (4 B) and the class id (2 B).

    Attributes:
        bits: of each number of a mean, 8 or 4.
    """

    bits: int = 8
    name: ClassVar[str] = "means"
    code: ClassVar[int] = pb.HEAD_MEANS
    rows: ClassVar[str] = "means"
    logit_scale: ClassVar[float] = UNIT_SCORES

    def __post_init__(self) -> None:
        if self.bits not in (4, 8):
            raise RecastError(f"head means at {self.bits} bits: choose 4 or 8")

    def fit(self, features: Tensor, labels: Tensor, classes: int) -> nn.Linear:
        """See ``HeadKind``; not quantised, since nothing is sent."""
        check_features(features, labels, classes)
        sums, counts = class_sums(features, labels, classes)
        return _nearest_mean(sums, counts)

    def statistics(self, features: Tensor, labels: Tensor, classes: int) -> Statistics:
        """Quantised means ``[P, d]`` with ``scales``, ``counts`` and ``classes`` ``[P]``, and d."""
        check_features(features, labels, classes)
        sums, counts = class_sums(features.cpu(), labels.cpu(), classes)
        present = counts.nonzero().squeeze(1)
        whole, scales = quantise_rows(sums[present] / counts[present].unsqueeze(1), self.bits)
        return {
            "means": whole,
            "scales": scales,
            "counts": counts[present].to(torch.int32),
            "classes": present.to(torch.int16),
            "width": torch.tensor(features.shape[1], dtype=torch.int32),
        }

    def merge(self, statistics: Sequence[Statistics], classes: int) -> nn.Linear:
        """See ``HeadKind``."""
        check_merge(statistics, classes)
        widths = {int(one["width"]) for one in statistics}
        if len(widths) > 1:
            raise RecastError(
                f"class means of widths {sorted(widths)}: all clients need one backbone"
            )
        width = widths.pop()
        sums = torch.zeros(classes, width, dtype=torch.float64)
        counts = torch.zeros(classes, dtype=torch.float64)
        for one in statistics:
            ids, n = one["classes"].long(), one["counts"].double()
            means = restore_rows(one["means"], one["scales"], width)
            sums.index_add_(0, ids, means * n.unsqueeze(1))
            counts.index_add_(0, ids, n)
        return _nearest_mean(sums, counts)

    def layout(self, width: int, present: int) -> Sequence[Numbers]:
        """Scales, then means of 8 bits."""
        return (
            Numbers("scales", (present,)),
            Numbers("means", (present, width), whole=True),
        )

    def exact(self, statistics: Statistics) -> Statistics:
        """The means in float64, of scale 1."""
        means = restore_rows(statistics["means"], statistics["scales"], int(statistics["width"]))
        return {**statistics, "means": means, "scales": torch.ones(len(means), dtype=means.dtype)}

    def check(self, statistics: Statistics) -> None:
        """Scales are positive."""
        if bool((statistics["scales"] <= 0).any()):
            raise RefusedError("out-of-range", "a scale that is not positive")


def _nearest_mean(sums: Tensor, counts: Tensor) -> nn.Linear:
    """``argmin_c |x - m_c|^2`` as a linear head: ``argmax_c x m_c - |m_c|^2 / 2``.

    Scores are relative to the mean of all classes, which changes no difference between them, and
    scaled to the mean squared distance between class means, so that they are of order one.
    """
    known = counts > 0
    means = sums / counts.clamp_min(1).unsqueeze(1)
    if not bool(known.any()):
        raise RecastError("no class has an example: give a client data of the task")
    centre = means[known].mean(0)
    offsets = means - centre
    scale = offsets[known].square().sum(1).mean().clamp_min(1e-30)
    weight = offsets / scale
    bias = -(weight @ centre) - offsets.square().sum(1) / (2 * scale)
    weight[~known], bias[~known] = 0.0, ABSENT
    return frozen_linear(weight, bias)
