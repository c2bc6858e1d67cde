"""The default: a ridge head that never leaves its client."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from protos import recast_v1_pb2 as pb
from recast_core.heads.base import StayingHead, check_features
from recast_core.heads.ridge import ridge_head


@dataclass(frozen=True)
class LocalRidge(StayingHead):
    """A closed-form head on the client's own features; nothing is sent."""

    name: ClassVar[str] = "local"
    code: ClassVar[int] = pb.HEAD_LOCAL

    def fit(self, features: Tensor, labels: Tensor, classes: int) -> nn.Linear:
        """See ``HeadKind``."""
        check_features(features, labels, classes)
        return ridge_head(features, labels, classes)
