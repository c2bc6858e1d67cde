"""RECAST itself: the coefficients."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from recast_core.errors import RecastError
from recast_core.methods.base import Method, MethodModel
from recast_core.methods.edits import Edits
from recast_core.model import RecastModel


@dataclass(frozen=True)
class Recast(Method):
    """Train the coefficients of an attached model: K x D trained, D sent."""

    name: ClassVar[str] = "recast"
    learning_rate: ClassVar[float] = 2e-2

    def prepare(self, model: nn.Module) -> MethodModel:
        """See ``Method``; ``model`` must be attached."""
        if not isinstance(model, RecastModel):
            raise RecastError("recast needs a bank: prepare attach(model, mimic(model))")
        return MethodModel(self.name, model, Edits(model.backbone), [])
