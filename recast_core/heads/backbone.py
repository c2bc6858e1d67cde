"""The deployed network's own classifier, kept as it is: no byte, and nothing to fit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from protos import recast_v1_pb2 as pb
from recast_core.errors import RecastError
from recast_core.heads.base import StayingHead


@dataclass(frozen=True)
class DeployedHead(StayingHead):
    """For tasks that are new domains of the classes that the network knows."""

    name: ClassVar[str] = "backbone"
    code: ClassVar[int] = pb.HEAD_BACKBONE
    kept: ClassVar[bool] = True

    def fit(self, features: Tensor, labels: Tensor, classes: int) -> nn.Linear:
        """Nothing is fitted.

        Raises:
            RecastError: always; the classifier is the model's ``head``.
        """
        raise RecastError("the deployed classifier is kept, not fitted: take the model's own head")
