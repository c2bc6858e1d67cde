"""What every target layer does: recombine its tensors, with or without a client axis."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from recast_core.coefficients import Coefficients
from recast_core.layers.exposed import expose


class Templates(nn.Module):
    """The templates of one group, held once however many layers read them.

    Attributes:
        stack: float32 ``[n, *shape]``; not part of the state dict, since the bank has its own file.
    """

    stack: Tensor

    def __init__(self, stack: Tensor) -> None:
        super().__init__()
        self.register_buffer("stack", stack, persistent=False)


@dataclass(frozen=True)
class Slot:
    """Where one tensor of a layer comes from.

    Attributes:
        coefficients: those of the whole model.
        row: the row of this tensor.
        templates: those of its group.
        residual: add the frozen tensor, and count coefficients from ``c0``.
    """

    coefficients: Coefficients
    row: int
    templates: Templates
    residual: bool

    @property
    def dims(self) -> int:
        """How many dimensions the tensor has without a client axis."""
        return self.templates.stack.dim() - 1

    def combine(self, base: Tensor | None) -> Tensor:
        """``sum_i c_i T_i`` or ``W0 + sum_i (c_i - c0_i) T_i``: ``[*shape]`` or ``[J, *shape]``."""
        row = self.coefficients.row(self.row)
        if self.residual:
            row = row - self.coefficients.initial_row(self.row)
        stack = self.templates.stack
        flat = stack.flatten(1)
        if row.dim() == 1 or row.device.type != "cpu":
            mixed = row @ flat
        else:
            # A product for each client, so that its last bits do not depend on the others; on a
            # GPU, where they do anyway, one product for all takes a third of the time.
            mixed = torch.bmm(row.unsqueeze(1), flat.expand(len(row), -1, -1)).squeeze(1)
        combined: Tensor = mixed.unflatten(-1, stack.shape[1:])
        return combined if base is None else base + combined


class TargetLayer(nn.Module):
    """A frozen module some of whose tensors are recombined.

    With coefficients ``[D]`` it computes what the original module would with the combined weight.
    With a client axis ``[J, D]`` its input holds J equal blocks of rows, client after client, and
    block j meets the weight of client j.

    A parent may read what the module in its place had (``batch_first``, ``weight``): a tensor is
    then the combined one.

    Attributes:
        original: the module that this layer stands for. Tensors that the combination replaces
            outright are ``None`` in it; those of the residual form stay.
        transforms: by tensor name, a module that maps the (combined or frozen) tensor to the one
            that the layer uses: how adapters reach a weight.
    """

    original: nn.Module
    transforms: nn.ModuleDict

    def __init__(self, original: nn.Module, slots: Mapping[str, Slot]) -> None:
        super().__init__()
        self.original = original
        self.transforms = nn.ModuleDict()
        # A plain dict hides the shared modules from this module's own tree: they are registered
        # once, on the attached model, and would otherwise appear in the state dict of each layer.
        self._slots = dict(slots)
        for name, slot in slots.items():
            if slot.residual:
                continue
            if name in original._buffers:
                original.register_buffer(name, None)
            else:
                original.register_parameter(name, None)

    def __getattr__(self, name: str) -> Any:
        """What the original module has under a name that this layer lacks."""
        try:
            return super().__getattr__(name)
        except AttributeError:
            # Not there yet while a copy of this layer is being made.
            original = self.__dict__.get("_modules", {}).get("original")
            if original is None or name.startswith("__"):
                raise
        slots = self.__dict__.get("_slots", {})
        if name in slots:
            return expose(self, self.tensor(name), slots[name].dims)
        if name in self.transforms:
            return expose(self, self.tensor(name), getattr(original, name).dim())
        return getattr(original, name)

    @property
    def slots(self) -> Mapping[str, Slot]:
        """The recombined tensors by name; may be set, to combine the same ones otherwise."""
        return self._slots

    @slots.setter
    def slots(self, slots: Mapping[str, Slot]) -> None:
        self._slots = dict(slots)

    def tensor(self, name: str) -> Tensor:
        """The tensor ``name`` as it is now: recombined where it has a slot, else frozen."""
        slot = self._slots.get(name)
        frozen: Tensor = getattr(self.original, name)
        tensor = frozen if slot is None else slot.combine(frozen)
        if name in self.transforms:
            tensor = self.transforms[name](tensor)
        return tensor

    @property
    def written(self) -> list[str]:
        """The names of the tensors that are recombined or transformed."""
        return [*dict.fromkeys([*self._slots, *self.transforms])]

    def optional(self, name: str) -> Tensor | None:
        """Like ``tensor``, for a tensor that the module may lack (a bias)."""
        if name not in self._slots and getattr(self.original, name) is None:
            return None
        return self.tensor(name)

    @torch.no_grad()
    def plain(self) -> nn.Module:
        """The original module with its combined tensors written in: this layer is used up.

        Raises:
            RuntimeError: the coefficients carry a client axis.
        """
        if any(slot.coefficients.clients is not None for slot in self._slots.values()):
            raise RuntimeError("a layer with a client axis has no single weight")
        combined = {name: self.tensor(name).detach().clone() for name in self.written}
        for name, tensor in combined.items():
            if name in self.original._buffers:
                self.original.register_buffer(name, tensor)
            else:
                self.original.register_parameter(name, nn.Parameter(tensor, requires_grad=False))
        return self.original

    def extra_repr(self) -> str:
        """Which tensors are recombined, from how many templates."""
        return ", ".join(
            f"{name}: {slot.templates.stack.shape[0]} templates"
            for name, slot in self._slots.items()
        )


def split_clients(x: Tensor, clients: int) -> Tensor:
    """``[J*B, ...]`` as ``[J, B, ...]``; raises ValueError where J does not divide the rows."""
    if x.shape[0] % clients:
        raise ValueError(f"a batch of {x.shape[0]} rows cannot be split over {clients} clients")
    return x.reshape(clients, x.shape[0] // clients, *x.shape[1:])
