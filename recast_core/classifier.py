"""Where a model's classifier is: the last Linear whose output is the network's."""

from __future__ import annotations

import inspect
import operator
from dataclasses import dataclass

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F
from torch.nn.modules.dropout import _DropoutNd

from recast_core.errors import RecastError, in_a_line
from recast_core.trial import on_trial, output_tensor, try_inputs, unwrapped

# A child of one of these names that is a row of layers ending in the classifier counts whole.
_CUSTOMARY = ("heads", "head", "fc", "classifier", "linear")
# Of these it may consist: they take features as they are, rows of numbers.
_OF_ROWS = (
    nn.Linear, nn.Identity, _DropoutNd, nn.BatchNorm1d, nn.LayerNorm, nn.ReLU, nn.ReLU6, nn.GELU,
    nn.SiLU, nn.Tanh, nn.Hardswish, nn.LeakyReLU, nn.ELU, nn.Sigmoid,
)  # fmt: skip
_SAME_MODULES = (nn.Identity, nn.Flatten, _DropoutNd)
_SAME_METHODS = {"squeeze", "flatten", "view", "reshape", "contiguous", "float", "to", "clone"}
_SAME_FUNCTIONS = (torch.flatten, torch.squeeze, torch.reshape, F.dropout, operator.getitem)


@dataclass(frozen=True)
class Found:
    """What a search for the classifier came to.

    Attributes:
        name: of the classifier within the model; ``None`` where there is none.
        last: the name of the module that made the output, where that is known.
        why: what is in the way, where there is none.
    """

    name: str | None
    last: str | None = None
    why: str = ""


def find_head(model: nn.Module) -> str | None:
    """The name of the classifier, or ``None``; see ``locate_head``."""
    return locate_head(model).name


def require_head(model: nn.Module, what: str, remedy: str) -> str:
    """The name of the classifier.

    Raises:
        RecastError: there is none; says why, and ``remedy``.
    """
    found = locate_head(model)
    if found.name is None:
        raise RecastError(f"{what} has no classifier that could be found ({found.why}): {remedy}")
    return found.name


def locate_head(model: nn.Module, example: Tensor | None = None) -> Found:
    """Find the last Linear whose output is the network's, by a trace or by a forward pass.

    Names do not decide: a hidden layer may be called ``fc``, and the classifier ``out``. Only how
    much of it counts is a matter of names: the whole row of layers ``classifier`` of a VGG, say.

    Args:
        model: not changed; may be inside DataParallel or compiled.
        example: an input, for a model that can be neither traced nor given a guessed one.
    """
    inner, prefix = unwrapped(model)
    found = _traced(inner)
    if found is None:
        found = _watched(inner, example)
    if found.name is not None:
        found = Found(prefix + _whole(inner, found.name), prefix + found.name)
    elif found.last is not None:
        found = Found(None, prefix + found.last, found.why)
    return found


def _whole(model: nn.Module, name: str) -> str:
    """The customary container that ends in the classifier ``name``, or ``name``."""
    child, _, rest = name.partition(".")
    container = model.get_submodule(child)
    leaves = [layer for layer in container.modules() if not list(layer.children())]
    fitting = rest and child in _CUSTOMARY and isinstance(container, nn.Sequential)
    if fitting and leaves[-1] is model.get_submodule(name):
        return child if all(isinstance(leaf, _OF_ROWS) for leaf in leaves) else name
    return name


class _Tracer(fx.Tracer):
    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, nn.Linear) or super().is_leaf_module(m, module_qualified_name)


def _traced(model: nn.Module) -> Found | None:
    """By the graph of the operations; ``None`` where that cannot be had."""
    with on_trial(model):
        try:
            options = inspect.signature(model.forward).parameters.values()
            given = {p.name: p.default for p in options if p.default is not p.empty}
            graph = _Tracer().trace(model, concrete_args=given or None)
        except Exception:  # whatever a stranger's forward makes of symbolic values
            return None
    output = next(node for node in graph.nodes if node.op == "output")
    node = _logits_node(output.args[0])
    while isinstance(node, fx.Node):
        if isinstance(node.target, type):
            return None  # an object of the model's own, whose fields a run shows
        if node.op == "call_module":
            module, name = model.get_submodule(str(node.target)), str(node.target)
            if isinstance(module, nn.Linear):
                return Found(name)
            if not isinstance(module, _SAME_MODULES):
                kind = type(module).__name__
                return Found(None, name, f"its output is that of {name!r} ({kind})")
        elif node.op == "call_function" and node.target in _SAME_FUNCTIONS:
            pass
        elif node.op != "call_method" or node.target not in _SAME_METHODS:
            what = getattr(node.target, "__name__", str(node.target))
            return Found(None, None, f"its output is that of {what}, not of a Linear layer")
        node = node.args[0] if node.args else None
    return None


def _logits_node(returned: object) -> object:
    if isinstance(returned, dict):
        nodes = [node for node in returned.values() if isinstance(node, fx.Node)]
        return returned.get("logits", nodes[0] if len(nodes) == 1 else None)
    if isinstance(returned, list | tuple):
        return returned[0] if len(returned) == 1 else None
    return returned


def _watched(model: nn.Module, example: Tensor | None) -> Found:
    """By a forward pass: the last Linear that gave what the network gave."""
    seen: list[tuple[str, Tensor]] = []
    results: list[Tensor] = []

    def run(images: Tensor) -> None:
        seen.clear()
        results[:] = [output_tensor(model(images))]

    with on_trial(model):
        for name, module in model.named_modules():
            if isinstance(module, nn.Linear):
                module.register_forward_hook(_Watch(name, seen))
        try:
            if example is not None:
                run(example)
            elif try_inputs(model, run) is None:
                return Found(None, None, "it can be neither traced nor run on a guessed input")
        except RecastError as error:
            return Found(None, None, str(error).partition(": ")[0])
        except Exception as error:  # a stranger's forward
            return Found(None, None, f"it fails on the example: {in_a_line(error)}")
    result = results[0]
    for name, output in reversed(seen):
        if output.numel() == result.numel() and torch.equal(output.flatten(), result.flatten()):
            return Found(name)
    return Found(None, None, "its output is not that of a Linear layer")


class _Watch:
    def __init__(self, name: str, seen: list[tuple[str, Tensor]]) -> None:
        self._name, self._seen = name, seen

    def __call__(self, module: nn.Module, inputs: object, output: object) -> None:
        if isinstance(output, Tensor):
            self._seen.append((self._name, output))
