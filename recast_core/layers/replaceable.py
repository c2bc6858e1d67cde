"""Which modules a target layer can stand for: those that compute exactly what it computes."""

from __future__ import annotations

from collections import defaultdict

from torch import nn
from torch.nn.utils import parametrize, prune

from recast_core.errors import RecastError
from recast_core.frozen import is_freezing
from recast_core.layers.make import layer_kind

_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
_LEAVE_OUT = "leave it out of the target patterns"


def check_replaceable(model: nn.Module, name: str, tensor: str) -> None:
    """Refuse a module that does more than a target layer would do in its place.

    Args:
        model: that holds it.
        name: of the module.
        tensor: that is to be recombined.

    Raises:
        RecastError: a ``forward`` of its own, hooks, a computed tensor, or one module in several
            places; names the module and the remedy.
    """
    module = model.get_submodule(name)
    why = why_not(module, tensor)
    if why is None:
        places = _places(model, module)
        if len(places) > 1:
            why = (
                f"is used in {len(places)} places ({', '.join(places)}), of which one would be "
                f"replaced: give each place a module of its own, or {_LEAVE_OUT}"
            )
    if why is not None:
        raise RecastError(f"module {name!r} ({_called(module)}) {why}")


def has_hooks(module: nn.Module) -> bool:
    """Whether calling ``module`` runs more than its forward; not counting hooks of ``frozen``."""
    hooks = [hook for held in _HOOKS for hook in getattr(module, held).values()]
    return not all(map(is_freezing, hooks))


def why_not(module: nn.Module, tensor: str) -> str | None:
    """Why no target layer can stand for ``module``, with a remedy; ``None`` where one can."""
    kind = layer_kind(module)
    if kind is None:
        return "cannot be recombined, only Linear, Conv2d, MultiheadAttention and norms can: " + (
            _LEAVE_OUT
        )
    if computed := _computed(module, tensor):
        return computed
    if any(_own(module, kind, method) for method in ("forward", "__call__", "_conv_forward")):
        return (
            f"has a forward of its own, which a {kind.__name__} that takes its place would not "
            f"run: {_LEAVE_OUT}, or build the model with plain {kind.__name__}"
        )
    if has_hooks(module):
        return (
            f"has a hook, which would not run once it is replaced: remove it (handle.remove()), or "
            f"{_LEAVE_OUT}"
        )
    return None


def _computed(module: nn.Module, tensor: str) -> str | None:
    """What is wrong with a tensor that is no plain parameter or buffer."""
    if parametrize.is_parametrized(module):
        names = ", ".join(module.parametrizations)  # type: ignore[arg-type]
        return (
            f"has a parametrised {names}, which would be lost: write it in with "
            f"torch.nn.utils.parametrize.remove_parametrizations(module, {names!r}), or "
            f"{_LEAVE_OUT}"
        )
    for hook in module._forward_pre_hooks.values():
        if isinstance(hook, prune.BasePruningMethod):
            return (
                "is pruned: make that permanent with torch.nn.utils.prune.remove(module, "
                f"{hook._tensor_name!r}), or {_LEAVE_OUT}"
            )
        norm = {"WeightNorm": "weight_norm", "SpectralNorm": "spectral_norm"}.get(
            type(hook).__name__
        )
        if norm:
            return (
                f"has a {norm}: write it in with torch.nn.utils.remove_{norm}(module), or "
                f"{_LEAVE_OUT}"
            )
    held = tensor in module._parameters or tensor in module._buffers
    if not held or hasattr(type(module), tensor):
        return f"computes its {tensor} instead of holding it: {_LEAVE_OUT}"
    return None


def _called(module: nn.Module) -> str:
    """The name of its class; with its module's where PyTorch has another class of that name."""
    kind = type(module)
    plain = getattr(nn, kind.__name__, kind)
    return kind.__name__ if plain is kind else f"{kind.__module__}.{kind.__name__}"


def _own(module: nn.Module, kind: type[nn.Module], method: str) -> bool:
    usual = getattr(kind, method, None)
    return method in vars(module) or getattr(type(module), method, None) is not usual


def _places(model: nn.Module, module: nn.Module) -> list[str]:
    """Where ``module`` is held: one name for each attribute, however often its parent is held."""
    held: dict[int, list[str]] = defaultdict(list)
    for path, parent in model.named_modules():
        for child, inner in parent._modules.items():
            if inner is module:
                held[id(parent)].append(f"{path}.{child}" if path else child)
    return [name for names in held.values() for name in names]
