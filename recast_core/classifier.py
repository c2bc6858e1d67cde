"""Where a model's classifier is."""

from __future__ import annotations

from torch import nn

_NAMES = ("heads", "head", "fc", "classifier", "linear")


def find_head(model: nn.Module) -> str | None:
    """The name of the classifier: a direct child that ends in a Linear, or ``None``."""
    children = dict(model.named_children())
    for name in _NAMES:
        if name in children and isinstance(_last(children[name]), nn.Linear):
            return name
    return None


def _last(module: nn.Module) -> nn.Module:
    layers = [layer for layer in module.modules() if not list(layer.children())]
    return layers[-1] if layers else module
