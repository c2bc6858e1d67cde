"""The baseline that changes nothing but the head."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from recast_core.errors import RecastError
from recast_core.methods.base import Method, MethodModel
from recast_core.methods.edits import Edits, taken_apart
from recast_core.model import RecastModel


@dataclass(frozen=True)
class HeadOnly(Method):
    """Train nothing and send nothing: a head on the backbone's own features."""

    name: ClassVar[str] = "head-only"
    learning_rate: ClassVar[float] = 1e-2

    def prepare(self, model: nn.Module) -> MethodModel:
        """See ``Method``; ``model`` must not be attached."""
        if isinstance(model, RecastModel):
            raise RecastError(
                "head-only leaves the backbone as it is: prepare the backbone itself, or use "
                "recast for an attached model"
            )
        net = taken_apart(model)
        return MethodModel(self.name, net, Edits(net.backbone), [])
