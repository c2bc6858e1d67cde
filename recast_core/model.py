"""Attach a bank to a backbone, and take it off again."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Self

import torch
from torch import Tensor, nn

from recast_core.bank import TemplateBank
from recast_core.coefficients import Coefficients
from recast_core.copies import copied
from recast_core.errors import RecastError
from recast_core.fitness import check_fits, choose_head, compare, reference
from recast_core.frozen import freeze_moving, freeze_statistics, thaw_statistics
from recast_core.layers import Slot, TargetLayer, Templates, make_layer
from recast_core.layers.statistics import BatchStatistics
from recast_core.trial import output_tensor, refuse_lazy, untouched

# Of this thread or coroutine alone: the classifier in use, by the id of its model.
_heads: ContextVar[Mapping[int, nn.Module]] = ContextVar("heads", default={})  # noqa: B039


class RecastModel(nn.Module):
    """A backbone whose target layers read one vector of coefficients.

    Made by ``attach``. Calling it gives logits, ``features`` what the classifier would see.

    Attributes:
        backbone: the model that was attached to, without its classifier.
        coefficients: the only parameter that trains.
        head: the classifier; the backbone's own until a task's is put in its place.
        bank: what was attached.
        statistics: of the early BatchNorms, after ``recast_core.statistics.own_statistics``.
    """

    def __init__(
        self,
        backbone: nn.Module,
        bank: TemplateBank,
        coefficients: Coefficients,
        templates: nn.ModuleList,
        head: nn.Module,
        head_name: str | None,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.coefficients = coefficients
        self.templates = templates
        self.head = head
        self.bank = bank
        self.statistics: BatchStatistics | None = None
        # In a tuple, so that it is no submodule beside the head that takes its place.
        self._own_head = (head,)
        self._head_on: torch.device | None = None
        self._head_name = head_name
        self._merged = False

    @property
    def own_head(self) -> nn.Module:
        """The backbone's own classifier, whatever head is in its place now."""
        # Thousands of clients of a round ask for it, and moving nothing looks at every tensor.
        if self._head_on != self.device:
            self._own_head[0].to(self.device)
            self._head_on = self.device
        return self._own_head[0]

    @property
    def device(self) -> torch.device:
        """Where the coefficients are."""
        return self.coefficients.flat.device

    def copy(self) -> RecastModel:
        """A model of its own that shares only the frozen templates and the bank with this one."""
        shared: list[object] = [self.bank, *self.templates]
        return copied(self, {id(item): item for item in shared})

    def forward(self, images: Tensor) -> Tensor:
        """Logits ``[N, C]`` of images ``[N, 3, H, W]``; raises as ``features``."""
        count = self._begin()
        logits: Tensor = self.current_head(output_tensor(self.backbone(images)))
        self._end(count)
        return logits

    def features(self, images: Tensor) -> Tensor:
        """Features ``[N, d]``: the input of the classifier.

        Raises:
            RecastError: another thread or coroutine set the model to another task meanwhile.
        """
        count = self._begin()
        features = output_tensor(self.backbone(images))
        self._end(count)
        return features

    @property
    def current_head(self) -> nn.Module:
        """The classifier that is computed with here: that of ``using``, else ``head``."""
        return _heads.get().get(id(self), self.head)

    @contextmanager
    def using(self, vector: Tensor, head: nn.Module) -> Iterator[Self]:
        """Compute with these in the block, in this thread or coroutine alone; nothing is written.

        Args:
            vector: coefficients as they are sent, ``[D]``.
            head: the classifier.

        Raises:
            RecastError: coefficients of another length, or not finite.
        """
        token = _heads.set({**_heads.get(), id(self): head})
        try:
            with self.coefficients.using(vector):
                yield self
        finally:
            _heads.reset(token)

    @contextmanager
    def disable_adapter(self) -> Iterator[Self]:
        """Compute as the backbone came, with its own head, in the block; nothing is written.

        In this thread or coroutine alone, as ``using``. It is what the bank's start gives: the
        backbone, unless the bank has fewer templates than layers.
        """
        self.refuse_merged()
        with self.using(self.bank.initial_vector, self.own_head):
            yield self

    def refuse_merged(self) -> None:
        """Refuse to go on with what is used up.

        Raises:
            RecastError: ``merge`` has been called.
        """
        if self._merged:
            raise RecastError(
                "this model is merged already: use the module that merge() returned, or attach "
                "that again"
            )

    def _begin(self) -> int | None:
        self.refuse_merged()
        return None if self.coefficients.in_use else self.coefficients.turns.begin()

    def _end(self, count: int | None) -> None:
        if count is not None:
            self.coefficients.turns.end(count)

    def trainable_parameters(self) -> tuple[int, int]:
        """How many numbers train, and how many the model holds."""
        trained = self.coefficients.flat.shape[-1]
        held = {id(p): p.numel() for p in self.parameters()}
        return trained, sum(held.values()) + sum(
            t.numel() for _, t in self.templates.named_buffers()
        )

    def print_trainable_parameters(self) -> None:
        """Print what trains and what is sent, in PEFT's manner."""
        trained, held = self.trainable_parameters()
        print(
            f"trainable params: {trained:,} || all params: {held:,} || "
            f"trainable%: {100 * trained / held:.6f} || sent per update: {self.bank.sent:,}"
        )

    def merge(self) -> nn.Module:
        """The plain model with the present coefficients and head written into its weights.

        It is in evaluation mode, as this computes in any mode, has no trace of RECAST and costs
        nothing extra; this object is used up.

        Raises:
            RecastError: already merged, a client axis, or weights that are not finite.
        """
        self.coefficients.refuse_in_use()
        self.refuse_merged()
        if self.coefficients.clients is not None:
            raise RecastError(
                "coefficients with a client axis have no single weight: load one "
                "client's vector first"
            )
        merge_layers(self.backbone)
        thaw_statistics(self.backbone)
        self._merged = True
        if self._head_name is None:
            own = isinstance(self.head, nn.Identity)
            return (self.backbone if own else nn.Sequential(self.backbone, self.head)).eval()
        replace_module(self.backbone, self._head_name, self.head)
        return self.backbone.eval()


def attach(
    model: nn.Module,
    bank: TemplateBank,
    head: str | None = None,
    example: Tensor | None = None,
) -> RecastModel:
    """Replace the bank's target modules in ``model`` by target layers. Changes ``model`` in place.

    Everything in it is frozen and set to evaluation mode, statistics included, whatever mode is set
    later; only the coefficients train. Where an input is given or can be guessed, one forward pass
    is compared with that of the backbone.

    Args:
        model: the backbone that the bank was made for; float32.
        bank: verified templates and start.
        head: dotted name of the classifier; where ``None``, the last Linear whose output is the
            network's; empty for a model that gives features.
        example: an input that ``model`` takes, of one row or more.

    Raises:
        RecastError: ``model`` is attached already, does not match, has no classifier, or would not
            compute the same; names the first module that does not match. The model is then
            unchanged.
    """
    for name, module in model.named_modules():
        if isinstance(module, TargetLayer | RecastModel):
            raise RecastError(
                f"the model is attached already (at {name or 'its root'}): merge() it, or load the "
                "backbone afresh"
            )
    refuse_lazy(model)
    check_fits(model, bank)
    head = choose_head(model, bank, head, example)
    trainable = [p for p in model.parameters() if p.requires_grad]
    try:
        with untouched(model, only_on_error=True):
            model.requires_grad_(False)
            trial = reference(model, bank, example)
            net = _attached(model, bank, head)
            freeze_statistics(net.backbone)
            if trial is not None:
                compare(net, trial)
                freeze_moving(net.backbone, trial.example)
    except BaseException:
        for parameter in trainable:
            parameter.requires_grad_(True)
        raise
    return net


def _attached(model: nn.Module, bank: TemplateBank, head: str) -> RecastModel:
    device = next(model.parameters()).device
    coefficients = Coefficients(bank.initial, bank.sets).to(device)
    templates = nn.ModuleList(Templates(group.templates).to(device) for group in bank.groups)
    slots: dict[str, dict[str, Slot]] = defaultdict(dict)
    for group, shared in zip(bank.groups, templates, strict=True):
        assert isinstance(shared, Templates)
        for index, (name, row) in enumerate(zip(group.modules, group.rows, strict=True)):
            slots[name][group.tensor] = Slot(coefficients, row, shared, bank.residual)
            if group.base is not None:
                write_tensor(model.get_submodule(name), group.tensor, group.base[index].to(device))
    # Inner modules first: once an outer one is replaced, they go by another path.
    for name, by_tensor in sorted(slots.items(), key=lambda item: -item[0].count(".")):
        layer = make_layer(model.get_submodule(name), by_tensor)
        assert layer is not None
        replace_module(model, name, layer)
    classifier: nn.Module = nn.Identity()
    if head:
        classifier = model.get_submodule(head)
        replace_module(model, head, nn.Identity())
    return RecastModel(model, bank, coefficients, templates, classifier, head or None).eval()


def merge_layers(backbone: nn.Module) -> None:
    """Replace every target layer by the plain module with its present tensors, in place.

    Raises:
        RecastError: a tensor holds NaN or infinity; the backbone is then unchanged.
    """
    layers = [
        (name, layer) for name, layer in backbone.named_modules() if isinstance(layer, TargetLayer)
    ]
    for name, layer in layers:
        for tensor in layer.written:
            if not bool(torch.isfinite(layer.tensor(tensor)).all()):
                raise RecastError(
                    f"the merged weight of {name} holds NaN or infinity: load finite "
                    "coefficients first"
                )
    # Inner layers first: an outer one takes what it holds with it to another path.
    for name, layer in reversed(layers):
        replace_module(backbone, name, layer.plain())


def replace_module(model: nn.Module, name: str, module: nn.Module) -> None:
    """Put ``module`` where the submodule ``name`` of ``model`` is."""
    parent, _, child = name.rpartition(".")
    setattr(model.get_submodule(parent), child, module)


def write_tensor(module: nn.Module, name: str, tensor: Tensor) -> None:
    """Put a tensor in the place of a module's parameter or buffer, which is left as it is."""
    if name in module._buffers:
        module.register_buffer(name, tensor)
    else:
        module.register_parameter(name, nn.Parameter(tensor, requires_grad=False))
