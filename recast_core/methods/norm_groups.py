"""Grouped norm affine: a scale and a shift for groups of like channels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Self

import torch
from torch import Tensor, nn

from recast_core.errors import RecastError
from recast_core.methods.base import Method, MethodModel
from recast_core.methods.edits import Edits, original, sites, taken_apart
from recast_core.methods.parts import ParameterPart
from recast_core.methods.ranked import count_and_target

# Those whose scale and shift can be transformed.
_NORMS = (nn.BatchNorm2d, nn.LayerNorm)


class GroupOffset(nn.Module):
    """``t -> t + s g[group]``, ``g`` zero at the start.

    Attributes:
        group: of each channel, int64 ``[C]``.
        size: s, how large the tensor is: a number moves a channel by so much.
        offsets: g ``[G]``.
    """

    group: Tensor

    def __init__(self, group: Tensor, size: float, like: Tensor) -> None:
        super().__init__()
        self.register_buffer("group", group.to(like.device))
        self.size = size
        self.offsets = nn.Parameter(torch.zeros(int(group.max()) + 1, device=like.device))

    def forward(self, tensor: Tensor) -> Tensor:
        """Add the groups' offsets, broadcast over a client axis."""
        return tensor + self.size * self.offsets[self.group]


@dataclass(frozen=True)
class NormGroups(Method):
    """Train and send ``2 G`` numbers for every BatchNorm2d and LayerNorm.

    Channels are grouped by their scale: equally many of the smallest, and so on. The affine
    parameters are of one size in all groups, so that a step means the same everywhere.

    Attributes:
        groups: G; a layer of fewer channels has as many groups.
    """

    groups: int = 1
    name: ClassVar[str] = "norm-groups"
    learning_rate: ClassVar[float] = 1e-2
    foldable: ClassVar[bool] = True

    @classmethod
    def parse(cls, settings: str, target: str) -> Self:
        """``norm-groups`` or ``norm-groups:GROUPS``."""
        groups, told = count_and_target(cls.name, settings, "1")
        if told:
            raise RecastError(f"method {cls.name} has no target, {told!r} is too much")
        return cls(groups)

    @property
    def canonical(self) -> str:
        """With the groups."""
        return f"{self.name}:{self.groups}"

    def prepare(self, model: nn.Module) -> MethodModel:
        """See ``Method``."""
        net = taken_apart(model)
        edits = Edits(net.backbone)
        parameters: dict[str, nn.Parameter] = {}
        for name, path, module in list(sites(net.backbone)):
            scale = getattr(original(module), "weight", None)
            if not isinstance(original(module), _NORMS) or scale is None:
                continue
            group = groups_of(scale.detach(), self.groups)
            for tensor in ("weight", "bias"):
                offset = GroupOffset(group, float(scale.detach().abs().mean()), scale)
                edits.transform(path, tensor, offset)
                parameters[f"{name}.{tensor}"] = offset.offsets
        if not parameters:
            raise RecastError(
                "the backbone has no BatchNorm2d or LayerNorm with a scale: choose another method"
            )
        return MethodModel(self.name, net, edits, [ParameterPart(parameters)])


def groups_of(values: Tensor, count: int) -> Tensor:
    """``count`` groups of equally many like values, or as many as there are: int64 ``[C]``."""
    order = torch.argsort(values.cpu(), stable=True)
    group = torch.empty(len(values), dtype=torch.int64)
    group[order] = torch.arange(len(values)) * min(count, len(values)) // len(values)
    return group
