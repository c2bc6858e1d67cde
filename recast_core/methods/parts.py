"""The parts of what a method trains and sends."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import torch
from torch import Tensor, nn

from recast_core.coefficients import Coefficients


class Part(Protocol):
    """Parameters that train together with the numbers that stand for them when sent."""

    @property
    def count(self) -> int:
        """Numbers sent."""

    @property
    def bits(self) -> int:
        """Bits that a number takes without loss: 32 or 1."""

    def trainable(self) -> dict[str, nn.Parameter]:
        """The parameters by name."""

    def sent(self) -> Tensor:
        """The numbers as a detached float32 copy ``[count]``."""

    def load(self, vector: Tensor) -> None:
        """Set the parameters from numbers ``[count]``."""


class CoefficientPart:
    """The coefficients of an attached model; their mean over the sets is sent."""

    bits = 32

    def __init__(self, coefficients: Coefficients) -> None:
        self._coefficients = coefficients

    @property
    def count(self) -> int:
        """D."""
        return self._coefficients.sent_count

    def trainable(self) -> dict[str, nn.Parameter]:
        """The flat parameter."""
        return {"coefficients": self._coefficients.flat}

    def sent(self) -> Tensor:
        """``[D]``."""
        return self._coefficients.sent()

    def load(self, vector: Tensor) -> None:
        """Set every set of coefficients."""
        self._coefficients.load(vector)


class ParameterPart:
    """Parameters that are sent as they are, in the order of their names' dictionary."""

    bits = 32

    def __init__(self, parameters: Mapping[str, nn.Parameter]) -> None:
        self._parameters = dict(parameters)

    @property
    def count(self) -> int:
        """All elements."""
        return sum(parameter.numel() for parameter in self._parameters.values())

    def trainable(self) -> dict[str, nn.Parameter]:
        """The parameters."""
        return dict(self._parameters)

    def sent(self) -> Tensor:
        """The elements one parameter after another."""
        return torch.cat([p.detach().float().reshape(-1) for p in self._parameters.values()])

    @torch.no_grad()
    def load(self, vector: Tensor) -> None:
        """Copy the numbers in."""
        pieces = vector.split([parameter.numel() for parameter in self._parameters.values()])
        for parameter, piece in zip(self._parameters.values(), pieces, strict=True):
            parameter.copy_(piece.view_as(parameter))
