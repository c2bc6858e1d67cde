"""What of a network trains: everything, or coefficients along directions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import torch
from torch import Tensor, nn


class Form(Protocol):
    """What trains, and the network's tensors that follow from it."""

    @property
    def trained(self) -> Sequence[nn.Parameter]:
        """The parameters that an optimiser sees."""
        ...

    def tensors(self) -> dict[str, Tensor]:
        """The tensors that differ from the network's own, by dotted name; differentiable."""
        ...

    def reset(self) -> None:
        """Back to the network as it was, in place."""
        ...


class Everything:
    """Every parameter but the classifier's."""

    def __init__(self, model: nn.Module, head: str, device: torch.device) -> None:
        self._base = {
            name: tensor.detach().to(device)
            for name, tensor in model.named_parameters()
            if not name.startswith(f"{head}.")
        }
        self._own = {name: nn.Parameter(tensor.clone()) for name, tensor in self._base.items()}

    @property
    def trained(self) -> Sequence[nn.Parameter]:
        """See ``Form``."""
        return list(self._own.values())

    def tensors(self) -> dict[str, Tensor]:
        """See ``Form``."""
        return dict(self._own)

    @torch.no_grad()
    def reset(self) -> None:
        """See ``Form``."""
        for name, tensor in self._own.items():
            tensor.copy_(self._base[name])

    @torch.no_grad()
    def differences(self, names: Sequence[str]) -> dict[str, Tensor]:
        """How far each of these tensors has come: float32, on the CPU."""
        return {name: (self._own[name] - self._base[name]).cpu() for name in names}


class Along:
    """One row of coefficients for each section, which moves all the section's tensors.

    Args:
        model: the network.
        directions: by tensor name, float32 ``[n, *shape]``.
        section_of: the section of each of these tensors.
        device: where training happens.
    """

    def __init__(
        self,
        model: nn.Module,
        directions: Mapping[str, Tensor],
        section_of: Mapping[str, int],
        device: torch.device,
    ) -> None:
        base = dict(model.named_parameters())
        self._base = {name: base[name].detach().to(device) for name in directions}
        self._flat = {name: stack.flatten(1).to(device) for name, stack in directions.items()}
        self._section_of = section_of
        count = len(next(iter(self._flat.values())))
        sections = max(section_of.values()) + 1
        self.coefficients = nn.Parameter(torch.zeros(sections, count, device=device))

    @property
    def trained(self) -> Sequence[nn.Parameter]:
        """See ``Form``."""
        return [self.coefficients]

    def tensors(self) -> dict[str, Tensor]:
        """See ``Form``."""
        return {
            name: base
            + (self.coefficients[self._section_of[name]] @ self._flat[name]).view_as(base)
            for name, base in self._base.items()
        }

    @torch.no_grad()
    def reset(self) -> None:
        """See ``Form``."""
        self.coefficients.zero_()
