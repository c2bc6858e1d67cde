"""Piggyback: a binary mask over frozen weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from recast_core.errors import RecastError
from recast_core.methods.base import Method, MethodModel
from recast_core.methods.edits import Edits, sites, taken_apart, weight_of

# The paper's (section 3): scores start at 1e-2 and a weight is kept above 5e-3.
START = 1e-2
THRESHOLD = 5e-3


class _Binary(torch.autograd.Function):
    """1 above the threshold, else 0; the gradient passes straight through."""

    @staticmethod
    def forward(ctx: Any, scores: Tensor) -> Tensor:
        return (scores > THRESHOLD).to(scores.dtype)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return gradients[0]


class Mask(nn.Module):
    """``W -> W * mask``.

    Attributes:
        scores: float32 of the weight's shape; the mask is where they exceed the threshold.
    """

    def __init__(self, shape: torch.Size) -> None:
        super().__init__()
        self.scores = nn.Parameter(torch.full(shape, START))

    def forward(self, weight: Tensor) -> Tensor:
        """Zero the weights whose score is low."""
        mask: Tensor = _Binary.apply(self.scores)
        return weight * mask


class MaskPart:
    """Masks: real scores train, one bit for each is sent."""

    bits = 1

    def __init__(self, scores: Mapping[str, nn.Parameter]) -> None:
        self._scores = dict(scores)

    @property
    def count(self) -> int:
        """All weights under a mask."""
        return sum(scores.numel() for scores in self._scores.values())

    def trainable(self) -> dict[str, nn.Parameter]:
        """The scores."""
        return dict(self._scores)

    def sent(self) -> Tensor:
        """0 or 1 for each weight."""
        bits = [(s.detach() > THRESHOLD).float().reshape(-1) for s in self._scores.values()]
        return torch.cat(bits)

    @torch.no_grad()
    def load(self, vector: Tensor) -> None:
        """Set the scores so that each weight is kept where more than half of the masks kept it.

        Args:
            vector: a mask, or the mean of several, which becomes the scores' distance from the
                threshold: 1 gives the score that training started from.
        """
        pieces = vector.split([scores.numel() for scores in self._scores.values()])
        for scores, piece in zip(self._scores.values(), pieces, strict=True):
            scores.copy_((START * piece).view_as(scores))


@dataclass(frozen=True)
class Piggyback(Method):
    """Train real scores, send one bit for each weight (Mallya et al., ECCV 2018).

    Every weight of the Linear, Conv2d and attention projections of the backbone; biases and
    normalisation stay.
    """

    name: ClassVar[str] = "piggyback"
    learning_rate: ClassVar[float] = 1e-4

    def prepare(self, model: nn.Module) -> MethodModel:
        """See ``Method``."""
        net = taken_apart(model)
        edits = Edits(net.backbone)
        scores: dict[str, nn.Parameter] = {}
        # Inner modules first: wrapping an attention moves its out-projection to another path.
        for name, path, module in reversed(list(sites(net.backbone))):
            weight = weight_of(module)
            # A recombined normalisation layer has a weight too; it keeps its numbers.
            if weight is None or len(weight[1]) < 2:
                continue
            tensor, shape = weight
            mask = Mask(shape).to(next(net.parameters()).device)
            edits.transform(path, tensor, mask)
            scores[f"{name}.{tensor}"] = mask.scores
        if not scores:
            raise RecastError(
                "piggyback finds no Linear, Conv2d or attention in the backbone: choose another "
                "method"
            )
        return MethodModel(self.name, net, edits, [MaskPart(dict(reversed(scores.items())))])
