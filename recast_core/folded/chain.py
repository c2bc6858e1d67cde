"""A convolutional suffix as a short list of fused units, for many clients on a CPU."""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from recast_core.coefficients import Coefficients
from recast_core.folded.grouped import LAST, gather, scatter
from recast_core.folded.split import SplitModel
from recast_core.folded.unit import Constants, UnfitError, Unit, check_norm, normalise
from recast_core.layers import RecastBatchNorm2d, RecastConv2d, has_hooks
from recast_core.objectives import Batch

_RELUS = (F.relu, torch.relu, "relu", "relu_")
_ADDS = (operator.add, operator.iadd, torch.add, "add", "add_")
_ALL = slice(None)
# Of values with clients as channel groups, J, and whether norms take each client's own rows.
Plain = Callable[[Tensor, int, bool], Tensor]


@dataclass(frozen=True)
class _Link:
    """One operation: what it is, of which values, and which value it makes."""

    step: Unit | Plain | None
    sources: tuple[fx.Node, ...]
    made: fx.Node


class Chain:
    """The features of a suffix, of clients as channel groups: the same function, fused.

    Attributes:
        half: what is between inputs and features is bfloat16, whose bits may depend on who else is
            there.
    """

    def __init__(
        self, links: list[_Link], entry: fx.Node, result: fx.Node, coefficients: Coefficients
    ) -> None:
        self.half = False
        self._links, self._entry, self._result = links, entry, result
        self._coefficients = coefficients
        self._last = {source: at for at, link in enumerate(links) for source in link.sources}
        self._unfit: set[tuple[object, ...]] = set()

    def features(self, inputs: Tensor, batch: Batch) -> Tensor | None:
        """Features ``[J, N, d]`` of inputs ``[J*N, C, H, W]``, zero in padding.

        Clients with another number of images, or that normalise otherwise, are computed apart: each
        gets what it gets alone.

        Returns:
            ``None`` where bits would depend on who else is there.
        """
        key = (batch.real.shape[1], *inputs.shape[1:])
        if key in self._unfit:
            return None
        try:
            return self._of_kinds(inputs, batch)
        except UnfitError:
            self._unfit.add(key)
            return None

    def _of_kinds(self, inputs: Tensor, batch: Batch) -> Tensor:
        clients, images = batch.real.shape
        local = torch.zeros_like(batch.real[:, 0]) if batch.local is None else batch.local
        if bool((local == local[0]).all()):
            if bool(batch.real.all()):
                found: Tensor = self._run(inputs, clients, bool(local[0]))
                return found.view(clients, images, -1)
            if bool((batch.real == batch.real[:1]).all()):
                return self._of_kind(inputs.unflatten(0, (clients, -1)), batch.real[0], local)
        split = inputs.unflatten(0, (clients, images))
        kinds, which = torch.cat([batch.real, local[:, None]], 1).unique(dim=0, return_inverse=True)
        parts = []
        for kind in range(len(kinds)):
            members = (which == kind).nonzero().squeeze(1)
            with self._coefficients.of_clients(members):
                parts.append(self._of_kind(split[members], kinds[kind, :-1], local[members]))
        return torch.cat(parts)[which.argsort(stable=True).argsort()]

    def _of_kind(self, split: Tensor, real: Tensor, local: Tensor) -> Tensor:
        """Features ``[A, N, d]`` of clients ``[A, N, C, H, W]`` whose images in ``real`` count."""
        kept = real.nonzero().squeeze(1)
        # Who is done shows nothing: its first image stands for all, and counts nowhere.
        chosen = kept if len(kept) else kept.new_zeros(1)
        shown = split[:, chosen].flatten(0, 1)
        found = self._run(shown, len(split), bool(local[0])).view(len(split), len(chosen), -1)
        padded = found.new_zeros(len(split), len(real), found.shape[2])
        return padded.index_copy(1, kept, found[:, : len(kept)])

    def _run(self, inputs: Tensor, clients: int, local: bool) -> Tensor:
        values = {self._entry: gather(inputs.bfloat16() if self.half else inputs, clients)}
        for at, link in enumerate(self._links):
            given = [values[source] for source in link.sources]
            for source in link.sources:
                if self._last[source] == at:
                    values.pop(source, None)
            if link.step is None:
                made = given[0] + given[1]
            elif isinstance(link.step, Unit):
                made = link.step(given[0], given[1] if len(given) > 1 else None, clients, local)
            else:
                made = link.step(given[0], clients, local)
            values[link.made] = made
        return scatter(values[self._result].to(inputs.dtype), clients)


def chain_of(model: SplitModel, constants: Constants, *, half: bool = False) -> Chain | None:
    """The suffix of ``model`` as a chain; ``None`` where it is of another kind.

    Args:
        model: divided, on a CPU.
        constants: what its units compute once; may be shared with those of copies of the model.
        half: compute in bfloat16; weights are combined in float32 all the same.
    """
    owner = model.suffix if isinstance(model.suffix, fx.GraphModule) else model.net.backbone
    try:
        if model.graph is not None:
            chain = _Builder(owner, constants, model.net.coefficients).build(model.graph)
            chain.half = half
            return chain
    except Exception:  # an operation of another kind
        pass
    return None


class _Builder:
    """Reads a graph from its beginning to the pooled features."""

    def __init__(self, owner: nn.Module, constants: Constants, coefficients: Coefficients) -> None:
        self._owner, self._constants, self._coefficients = owner, constants, coefficients
        self._links: list[_Link] = []
        self._names: dict[fx.Node, fx.Node] = {}
        self._pooled: set[fx.Node] = set()

    def build(self, graph: fx.Graph) -> Chain:
        """The chain.

        Raises:
            UnfitError: an operation that is not known.
        """
        entry: fx.Node | None = None
        for node in graph.nodes:
            if node.op == "placeholder":
                if entry is not None:
                    raise UnfitError
                entry = node
            elif node.op == "output":
                result = self._of(node.args[0])
                if entry is None or result not in self._pooled:
                    raise UnfitError
                return Chain(self._links, entry, result, self._coefficients)
            else:
                self._read(node)
        raise UnfitError

    def _of(self, node: Any) -> fx.Node:
        if not isinstance(node, fx.Node):
            raise UnfitError
        return self._names.get(node, node)

    def _read(self, node: fx.Node) -> None:
        source = self._of(node.args[0])
        module = self._owner.get_submodule(str(node.target)) if node.op == "call_module" else None
        if module is not None and has_hooks(module):
            raise UnfitError
        if type(module) in (nn.Identity, nn.Dropout) or _takes_all(node):
            self._names[node] = source
        elif source in self._pooled:
            # Rows of features: what follows may lay them out flat, and no more.
            if node.target not in (torch.flatten, "flatten") and type(module) is not nn.Flatten:
                raise UnfitError
            self._names[node] = source
        elif type(module) in (nn.Conv2d, RecastConv2d):
            assert module is not None
            unit = Unit(str(node.target), module, self._constants)
            self._links.append(_Link(unit, (source,), node))
        elif type(module) in (nn.BatchNorm2d, RecastBatchNorm2d):
            assert module is not None
            self._norm(node, source, module)
        elif type(module) is nn.ReLU or node.target in _RELUS:
            self._cut(node, source)
        elif node.target in _ADDS:
            self._add(node, source, self._of(node.args[1]))
        else:
            self._links.append(_Link(self._plain(node, module), (source,), node))
            if _pools(node, module):
                self._pooled.add(node)

    def _norm(self, node: fx.Node, source: fx.Node, norm: nn.Module) -> None:
        check_norm(norm)
        try:
            self._open(node, source, normed=False).add_norm(norm)
        except UnfitError:
            self._links.append(
                _Link(
                    lambda x, clients, local: normalise(norm, x, clients, local=local),
                    (source,),
                    node,
                )
            )
            return
        self._names[node] = source

    def _open(self, node: fx.Node, source: fx.Node, *, normed: bool | None = None) -> Unit:
        """The unit that made ``source`` if ``node`` alone reads it, and it can take more."""
        unit = self._unit(source)
        if unit is None or unit.cut or (normed is False and unit.normed):
            raise UnfitError
        if self._of_users(source) != [node]:
            raise UnfitError
        return unit

    def _of_users(self, source: fx.Node) -> list[fx.Node]:
        """Who reads a value, under whatever name it has by now."""
        same = [source, *(name for name, of in self._names.items() if of is source)]
        return [user for one in same for user in one.users if user not in self._names]

    def _unit(self, source: fx.Node) -> Unit | None:
        found = [link.step for link in self._links if link.made is source]
        return found[0] if found and isinstance(found[0], Unit) else None

    def _cut(self, node: fx.Node, source: fx.Node) -> None:
        try:
            self._open(node, source).add_cut()
        except UnfitError:
            self._links.append(_Link(lambda x, *_: x.relu(), (source,), node))
            return
        self._names[node] = source

    def _add(self, node: fx.Node, one: fx.Node, other: fx.Node) -> None:
        """Into the unit that is computed last, if it is read here alone; else by itself."""
        for mine, residual in ((other, one), (one, other)):
            at = next((i for i, link in enumerate(self._links) if link.made is mine), None)
            link = None if at is None else self._links[at]
            if at is None or link is None or not isinstance(link.step, Unit) or link.step.cut:
                continue
            if len(link.sources) > 1 or self._of_users(mine) != [node] or mine is residual:
                continue
            # Here, where both are there.
            del self._links[at]
            self._links.append(_Link(link.step, (link.sources[0], residual), mine))
            self._names[node] = mine
            return
        self._links.append(_Link(None, (one, other), node))

    def _plain(self, node: fx.Node, module: nn.Module | None) -> Plain:
        """Operations that know no channels, and padding of channels."""
        arguments, named = node.args[1:], dict(node.kwargs)
        if type(module) is nn.AdaptiveAvgPool2d and module.output_size in (1, (1, 1)):
            return lambda x, *_: x.mean((2, 3))
        if type(module) in (nn.MaxPool2d, nn.AvgPool2d):
            pool: Callable[[Tensor], Tensor] = module  # type: ignore[assignment]
            return lambda x, *_: pool(x)
        if node.target in ("mean", torch.mean) and (*arguments, *named.values()) == ((2, 3),):
            return lambda x, *_: x.mean((2, 3))
        if node.target is operator.getitem and isinstance(arguments[0], tuple):
            where: Any = arguments[0]
            if where[:2] == (_ALL, _ALL) and all(isinstance(part, slice) for part in where):
                return lambda x, *_: x[where]
        if node.target is F.pad and len(arguments) == 1 and not named.get("value"):
            sides = arguments[0] if named.get("mode", "constant") == "constant" else ()
            if isinstance(sides, tuple | list) and len(sides) == 6 and not any(sides[:4]):
                before, after = sides[4], sides[5]
                assert isinstance(before, int)
                assert isinstance(after, int)
                return lambda x, clients, _: _more_channels(x, clients, before, after)
        raise UnfitError


def _takes_all(node: fx.Node) -> bool:
    """Whether it is ``x[:, :, ::1, ::1]`` or the like, which is ``x``."""
    where = node.args[1] if node.target is operator.getitem else None
    return isinstance(where, tuple) and all(
        isinstance(part, slice)
        and (part.start, part.stop) == (None, None)
        and part.step in (None, 1)
        for part in where
    )


def _pools(node: fx.Node, module: nn.Module | None) -> bool:
    return type(module) is nn.AdaptiveAvgPool2d or node.target in ("mean", torch.mean)


def _more_channels(x: Tensor, clients: int, before: int, after: int) -> Tensor:
    """Zeros before and after each client's channels: ``[B, J*(before + C + after), H, W]``."""
    lying = x.movedim(1, -1).unflatten(-1, (clients, -1))
    padded = F.pad(lying, (before, after))
    return padded.flatten(-2).movedim(-1, 1).contiguous(memory_format=LAST)
