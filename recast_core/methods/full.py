"""Full fine-tuning."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from recast_core.errors import RecastError
from recast_core.methods.base import Method, MethodModel
from recast_core.methods.edits import Edits, taken_apart
from recast_core.methods.parts import ParameterPart
from recast_core.model import RecastModel


@dataclass(frozen=True)
class Full(Method):
    """Train and send every parameter of the backbone; normalisation statistics stay frozen."""

    name: ClassVar[str] = "full"
    learning_rate: ClassVar[float] = 1e-4

    def prepare(self, model: nn.Module) -> MethodModel:
        """See ``Method``; ``model`` must not be attached."""
        if isinstance(model, RecastModel):
            raise RecastError(
                "full fine-tuning trains the very weights that the bank recombines: prepare the "
                "backbone itself"
            )
        net = taken_apart(model)
        edits = Edits(net.backbone)
        parameters = dict(net.backbone.named_parameters())
        for parameter in parameters.values():
            edits.train(parameter)
        return MethodModel(self.name, net, edits, [ParameterPart(parameters)])
