"""Changes that a method makes to a backbone, and their undoing."""

from __future__ import annotations

from collections.abc import Iterator
from fnmatch import fnmatchcase

import torch
from torch import Tensor, nn

from recast_core.errors import RecastError
from recast_core.layers import TargetLayer, check_replaceable, make_layer
from recast_core.methods.plain import PlainModel
from recast_core.model import RecastModel, replace_module


def taken_apart(model: nn.Module) -> RecastModel | PlainModel:
    """``model`` as something with features and a head."""
    return model if isinstance(model, RecastModel | PlainModel) else PlainModel(model)


def original(module: nn.Module) -> nn.Module:
    """The module that a target layer stands for; any other module itself."""
    return module.original if isinstance(module, TargetLayer) else module


def sites(backbone: nn.Module) -> Iterator[tuple[str, str, nn.Module]]:
    """The modules of a backbone, target layers standing for their originals.

    Yields:
        The name as in the backbone before attaching, the present name, and the module.
    """
    inner = {id(m.original) for m in backbone.modules() if isinstance(m, TargetLayer)}
    for name, module in backbone.named_modules():
        if id(module) not in inner:
            yield name.replace(".original", ""), name, module


def weight_of(module: nn.Module) -> tuple[str, torch.Size] | None:
    """Name and shape of a module's weight, recombined or not; ``None`` where it has no one weight.

    Of an ``nn.MultiheadAttention`` that is the packed in-projection.
    """
    plain = original(module)
    name = "in_proj_weight" if isinstance(plain, nn.MultiheadAttention) else "weight"
    if isinstance(module, TargetLayer) and name in module.slots:
        return name, module.slots[name].templates.stack.shape[1:]
    if not isinstance(plain, nn.MultiheadAttention | nn.Linear | nn.Conv2d):
        return None
    weight: Tensor | None = getattr(plain, name)
    return None if weight is None else (name, weight.shape)


def matching(
    backbone: nn.Module, patterns: tuple[str, ...], kinds: tuple[type[nn.Module], ...], why: str
) -> list[tuple[str, str, nn.Module]]:
    """The ``sites`` of some types whose name matches a pattern.

    Raises:
        RecastError: none; ``why`` says what was looked for and what to do.
    """
    found = [
        site
        for site in sites(backbone)
        if isinstance(original(site[2]), kinds) and any(fnmatchcase(site[0], p) for p in patterns)
    ]
    if not found:
        raise RecastError(why)
    return found


class Edits:
    """The changes made to one backbone."""

    def __init__(self, backbone: nn.Module) -> None:
        self._backbone = backbone
        # In order: where, and the module that was there or the tensor that is transformed.
        self._changes: list[tuple[str, nn.Module | str]] = []
        self._saved: list[tuple[nn.Parameter, Tensor]] = []

    def replace(self, name: str, module: nn.Module) -> None:
        """Put ``module`` where the module ``name`` is."""
        self._changes.append((name, self._backbone.get_submodule(name)))
        replace_module(self._backbone, name, module)

    def transform(self, name: str, tensor: str, transform: nn.Module) -> None:
        """Let the module ``name`` use ``transform(tensor)`` in the place of its ``tensor``.

        A module that is no target layer becomes one that recombines nothing.
        """
        layer = self._backbone.get_submodule(name)
        if not isinstance(layer, TargetLayer):
            made = make_layer(layer, {})
            if made is None:
                raise RecastError(
                    f"module {name!r} is a {type(layer).__name__}: only Linear, Conv2d and "
                    "MultiheadAttention can be transformed, choose another target"
                )
            check_replaceable(self._backbone, name, tensor)
            layer = made.eval()
            self.replace(name, layer)
        layer.transforms[tensor] = transform
        self._changes.append((name, tensor))

    def train(self, parameter: nn.Parameter) -> None:
        """Remember a parameter that is about to train in place."""
        self._saved.append((parameter, parameter.detach().clone()))

    @torch.no_grad()
    def undo(self) -> None:
        """Everything as it was."""
        # Backwards: a name holds among the changes that came before it.
        for name, change in reversed(self._changes):
            if isinstance(change, str):
                layer = self._backbone.get_submodule(name)
                assert isinstance(layer, TargetLayer)
                del layer.transforms[change]
            else:
                replace_module(self._backbone, name, change)
        for parameter, value in self._saved:
            parameter.copy_(value)
        self._changes, self._saved = [], []
