"""A linear head that the clients average."""

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
    Numbers,
    Statistics,
    TravellingHead,
    check_features,
    check_merge,
    frozen_linear,
)
from recast_core.heads.linear import logistic_head


@dataclass(frozen=True)
class SharedLinear(TravellingHead):
    """The average of the clients' trained heads, class by class, weighted by examples.

    The row of a class is averaged over the clients that have examples of it alone: one without
    does not pull it towards its own untrained row. A client sends P (d + 1) float32 numbers for
    its P classes, their counts and ids. In later rounds put the merged head into ``start``.

    Attributes:
        start: the head of the round before.
    """

    start: nn.Linear | None = None
    name: ClassVar[str] = "shared"
    code: ClassVar[int] = pb.HEAD_SHARED
    rows: ClassVar[str] = "weight"

    def fit(self, features: Tensor, labels: Tensor, classes: int) -> nn.Linear:
        """See ``HeadKind``."""
        return logistic_head(features, labels, classes, self.start)

    def statistics(self, features: Tensor, labels: Tensor, classes: int) -> Statistics:
        """``weight`` ``[P, d]``, ``bias``, ``counts`` and ``classes`` ``[P]`` of a fitted head."""
        check_features(features, labels, classes)
        return head_statistics(self.fit(features, labels, classes), labels, classes)

    def merge(self, statistics: Sequence[Statistics], classes: int) -> nn.Linear:
        """See ``HeadKind``; classes that nobody has keep their row of ``start``."""
        check_merge(statistics, classes)
        widths = {one["weight"].shape[1] for one in statistics}
        if len(widths) > 1:
            raise RecastError(f"heads of widths {sorted(widths)}: all clients need one backbone")
        rows = torch.zeros(classes, widths.pop() + 1, dtype=torch.float64)
        counts = torch.zeros(classes, dtype=torch.float64)
        for one in statistics:
            ids, n = one["classes"].long(), one["counts"].double()
            row = torch.cat([one["weight"], one["bias"].unsqueeze(1)], 1).double()
            rows.index_add_(0, ids, row * n.unsqueeze(1))
            counts.index_add_(0, ids, n)
        rows = rows / counts.clamp_min(1).unsqueeze(1)
        weight, bias = rows[:, :-1], rows[:, -1]
        missing = counts == 0
        bias[missing] = ABSENT
        if self.start is not None:
            weight[missing] = self.start.weight.detach().cpu()[missing].double()
            bias[missing] = self.start.bias.detach().cpu()[missing].double()
        return frozen_linear(weight, bias)

    def layout(self, width: int, present: int) -> Sequence[Numbers]:
        """Weights, then biases."""
        return (Numbers("weight", (present, width)), Numbers("bias", (present,)))


def head_statistics(head: nn.Linear, labels: Tensor, classes: int) -> Statistics:
    """What is sent of a head that was trained, also jointly, on examples of these labels."""
    counts = torch.bincount(labels.cpu(), minlength=classes)
    present = counts.nonzero().squeeze(1)
    return {
        "weight": head.weight.detach().cpu()[present],
        "bias": head.bias.detach().cpu()[present],
        "counts": counts[present].to(torch.int32),
        "classes": present.to(torch.int16),
    }
