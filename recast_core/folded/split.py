"""Divide a model before its first target layer: what comes before is the same for every client."""

from __future__ import annotations

import operator
from dataclasses import dataclass

import torch
from torch import Tensor, fx, nn

from recast_core.copies import copied
from recast_core.folded.economy import economise
from recast_core.folded.graphs import ancestors
from recast_core.layers import ReadWhileTracedError, TargetLayer, traced
from recast_core.model import RecastModel
from recast_core.trial import output_tensor


@dataclass(frozen=True, eq=False)
class SplitModel:
    """``suffix(prefix(images))`` is ``net.features(images)``.

    Attributes:
        net: the attached model, whose modules both parts share.
        prefix: frozen layers whose output is the same for every client; ``None`` where the model
            could not be divided.
        suffix: the rest, with every target layer.
        graph: the operations of the suffix; ``None`` where ``torch.fx`` cannot follow them. Made
            with the model and never later: while one thread traces, every module of the process is
            patched, and another thread that trains would be given symbols.
    """

    net: RecastModel
    prefix: nn.Module | None
    suffix: nn.Module
    graph: fx.Graph | None


class _Features(nn.Module):
    def __init__(self, net: RecastModel) -> None:
        super().__init__()
        self.backbone = net.backbone

    def forward(self, images: Tensor) -> Tensor:
        return output_tensor(self.backbone(images))


class _Tracer(fx.Tracer):
    def __init__(self, whole: tuple[type[nn.Module], ...]) -> None:
        super().__init__()
        self._whole: tuple[type[nn.Module], ...] = (TargetLayer, *whole)

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, self._whole) or super().is_leaf_module(m, module_qualified_name)


def split_model(net: RecastModel, size: int, channels: int = 3) -> SplitModel:
    """Divide ``net`` at the last single tensor that no coefficient reaches.

    A backbone that ``torch.fx`` cannot follow, or whose parts do not reproduce it on an example,
    stays whole: that costs time, not correctness.

    Args:
        net: attached, in evaluation mode, on the device where it will run.
        size: pixels a side of the images that it takes.
        channels: of these.
    """
    shape = (2, channels, size, size)
    example = torch.linspace(-1, 1, 2 * channels * size * size, device=net.device).view(shape)
    graph: fx.Graph | None = None
    try:
        graph = trace(net.backbone)
        divided = _divide(net, graph)
        if divided is not None and _same(net, divided, example):
            prefix, suffix = divided
            return SplitModel(net, prefix, suffix, suffix.graph)
    except Exception:  # whatever a stranger's forward makes of symbolic values
        pass
    return SplitModel(net, None, _Features(net), graph)


def _divide(net: RecastModel, graph: fx.Graph) -> tuple[fx.GraphModule, fx.GraphModule] | None:
    nodes = list(graph.nodes)
    placeholder = next(node for node in nodes if node.op == "placeholder")
    output = next(node for node in nodes if node.op == "output")
    reached: set[fx.Node] = set()
    for node in nodes:
        own = node.op == "call_module" and _has_target(net.backbone.get_submodule(str(node.target)))
        if own or any(parent in reached for parent in node.all_input_nodes):
            reached.add(node)
    for cut in reversed(nodes):
        if cut in reached or cut.op not in ("call_module", "call_function", "call_method"):
            continue
        if cut.target is getattr or cut.target is operator.getitem:
            continue
        after = ancestors(output, cut)
        if cut in after and placeholder not in after:
            before = ancestors(cut)
            suffix = fx.GraphModule(net.backbone, _copy(nodes, after, cut, output))
            economise(suffix)
            return fx.GraphModule(net.backbone, _copy(nodes, before, None, cut)), suffix
    return None


def trace(backbone: nn.Module) -> fx.Graph:
    """The graph of the operations; modules that read a target's tensors are one operation each."""
    readers: list[type[nn.Module]] = []
    while True:
        try:
            with traced():
                return _Tracer(tuple(readers)).trace(backbone)
        except ReadWhileTracedError as read:
            parents = [m for m in backbone.modules() if read.layer in m._modules.values()]
            if not parents or type(parents[0]) in readers:
                raise
            readers.append(type(parents[0]))


def _has_target(module: nn.Module) -> bool:
    return any(isinstance(inner, TargetLayer) for inner in module.modules())


def _copy(
    nodes: list[fx.Node], kept: set[fx.Node], entry: fx.Node | None, end: fx.Node
) -> fx.Graph:
    graph = fx.Graph()
    made: dict[fx.Node, fx.Node] = {}
    for node in nodes:
        if node is entry:
            made[node] = graph.placeholder("x")
        elif node in kept and node.op != "output":
            made[node] = graph.node_copy(node, lambda parent: made[parent])
    if end.op == "output":
        result = end.args[0]
        assert isinstance(result, fx.Node)
        graph.output(made[result])
    else:
        graph.output(made[end])
    return graph


@torch.no_grad()
def _same(net: RecastModel, parts: tuple[nn.Module, nn.Module], example: Tensor) -> bool:
    prefix, suffix = parts
    middle = prefix(example)
    if not isinstance(middle, Tensor) or middle.shape[0] != len(example):
        return False
    if prefix(example[:1]).shape[0] != 1:
        return False
    expected = net.features(example)
    return torch.allclose(suffix(middle), expected, rtol=1e-5, atol=1e-6)


def copy_split(model: SplitModel) -> SplitModel:
    """A model with coefficients of its own that shares every frozen tensor with this one."""
    net = model.net
    own = {id(tensor) for tensor in net.coefficients.parameters()}
    held = [*net.parameters(), *net.buffers(), *(p for m in _modules(model) for p in m.buffers())]
    shared: dict[int, object] = {id(t): t for t in held if id(t) not in own}
    shared |= {id(item): item for item in (net.bank, *net.templates)}
    twin, suffix = copied((net, model.suffix), shared)
    return SplitModel(twin, model.prefix, suffix, model.graph)


def _modules(model: SplitModel) -> list[nn.Module]:
    return [part for part in (model.prefix, model.suffix) if part is not None]
