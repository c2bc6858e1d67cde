"""The default: a ridge head that never leaves its client."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from recast_core.heads.base import Statistics, check_features
from recast_core.heads.ridge import ridge_head


@dataclass(frozen=True)
class LocalRidge:
    """A closed-form head on the client's own features; nothing is sent."""

    name: ClassVar[str] = "local"

    def fit(self, features: Tensor, labels: Tensor, classes: int) -> nn.Linear:
        """See ``HeadKind``."""
        check_features(features, labels, classes)
        return ridge_head(features, labels, classes)

    def statistics(self, features: Tensor, labels: Tensor, classes: int) -> Statistics:
        """Nothing."""
        return {}

    def merge(self, statistics: Sequence[Statistics], classes: int) -> None:
        """There is no shared head."""
