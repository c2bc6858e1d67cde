"""Fine-tune one network many times over, its classifier kept: what source networks come from."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from recast_core.copies import copied
from recast_core.errors import RecastError
from recast_core.recipe import Recipe
from recast_core.sources.forms import Form

_EVALUATED = 512


def rate_at(step: int, steps: int) -> float:
    """The share of the highest rate at a step from 0: it rises over a twentieth, then falls.

    The fall is a half cosine.
    """
    rising = (step + 1) / max(1, steps // 20)
    return min(rising, 0.5 * (1 + math.cos(math.pi * step / steps)))


@dataclass(frozen=True)
class Losses:
    """Mean cross-entropy over the first and the last tenth of the steps."""

    first: float
    last: float

    @property
    def diverged(self) -> bool:
        """Whether training made it worse."""
        return not self.last <= self.first + 0.1


class FineTuner:
    """Trains a form of one network on images, as often as asked, each time from the start.

    BatchNorm uses the statistics of the batch. On a GPU a step is captured once and replayed, so
    that all images of a run must have one shape.

    Args:
        model: a classifier in float32; not changed.
        form: what trains.
        device: where.
        half: products are bfloat16 where that is safe; ``None`` is so on a GPU alone.

    Attributes:
        form: what trains.
        buffers: the network's buffers as they are now, by dotted name.
    """

    def __init__(
        self, model: nn.Module, form: Form, device: torch.device, *, half: bool | None = None
    ) -> None:
        self.form = form
        self._device = device
        self._half = device.type == "cuda" if half is None else half
        self._net = copied(model).to(device).requires_grad_(False)
        if self._half:
            self._net = self._net.to(memory_format=torch.channels_last)
        self._start = {name: b.detach().clone() for name, b in self._net.named_buffers()}
        self.buffers = {name: b.clone() for name, b in self._start.items()}
        self._rate = torch.zeros((), device=device)
        self._loss = torch.zeros((), device=device)
        cuda = device.type == "cuda"
        self._optimizer = torch.optim.AdamW(
            list(form.trained),
            lr=self._rate if cuda else 0.0,
            weight_decay=0.0,
            fused=True,
            capturable=cuda,
        )
        self._images = self._labels = self._chosen = torch.empty(0)
        self._graph: Callable[[], None] | None = None

    def run(self, images: Tensor, labels: Tensor, recipe: Recipe, seed: int = 0) -> Losses:
        """Train; the result is in the form.

        Args:
            images: float ``[N, 3, H, W]``, as the network takes them.
            labels: int64 ``[N]``.
            recipe: epochs, batch and the highest rate of AdamW (without decay; see ``rate_at``).
            seed: of the shuffling.

        Raises:
            RecastError: no images.
        """
        if not len(labels):
            raise RecastError("no images to fine-tune on: give data with training images")
        batch = min(recipe.batch, len(labels))
        self._hold(images, labels, batch)
        self._restart()
        per_epoch = len(labels) // batch
        steps = per_epoch * recipe.epochs
        generator = torch.Generator().manual_seed(seed)
        losses = torch.zeros(steps, device=self._device)
        for step in range(steps):
            place = step % per_epoch
            if place == 0:
                order = torch.randperm(len(labels), generator=generator).to(self._device)
            self._chosen.copy_(order[place * batch : (place + 1) * batch])
            self._set_rate(recipe.learning_rate * rate_at(step, steps))
            if self._graph is None:
                self._step()
            else:
                self._graph()
            losses[step] = self._loss
        few = max(1, steps // 10)
        return Losses(float(losses[:few].mean()), float(losses[-few:].mean()))

    @torch.no_grad()
    def statistics(self, images: Tensor) -> None:
        """Give BatchNorms the statistics of these images, with the form as it is."""
        layers = [m for m in self._net.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
        momenta = [layer.momentum for layer in layers]
        for name, buffer in self.buffers.items():
            buffer.fill_(1) if name.endswith("running_var") else buffer.zero_()
        for layer in layers:
            layer.momentum = None
        self._net.train()
        tensors = self.form.tensors()
        for part in torch.tensor_split(images, -(-len(images) // _EVALUATED)):
            self._logits(part, tensors)
        for layer, momentum in zip(layers, momenta, strict=True):
            layer.momentum = momentum

    @torch.no_grad()
    def accuracy(self, images: Tensor, labels: Tensor) -> float:
        """The fraction right, with the form and the statistics as they are."""
        self._net.eval()
        tensors = self.form.tensors()
        right = [self._logits(p, tensors).argmax(1) for p in images.split(_EVALUATED)]
        return float((torch.cat(right) == labels.to(self._device)).double().mean())

    @torch.no_grad()
    def restart(self) -> None:
        """The network as it was: form and statistics."""
        self.form.reset()
        for name, buffer in self.buffers.items():
            buffer.copy_(self._start[name])

    def _restart(self) -> None:
        self.restart()
        for state in self._optimizer.state.values():
            for value in state.values():
                value.zero_()

    def _set_rate(self, rate: float) -> None:
        self._rate.fill_(rate)
        if self._device.type != "cuda":
            for group in self._optimizer.param_groups:
                group["lr"] = rate

    def _logits(self, images: Tensor, tensors: Mapping[str, Tensor]) -> Tensor:
        images = images.to(self._device)
        precision: AbstractContextManager[object] = nullcontext()
        if self._half:
            images = images.contiguous(memory_format=torch.channels_last)
            precision = torch.autocast(self._device.type, dtype=torch.bfloat16)
        with precision:
            logits: Tensor = functional_call(self._net, {**tensors, **self.buffers}, (images,))
        return logits.float()

    def _step(self) -> None:
        self._optimizer.zero_grad(set_to_none=False)
        logits = self._logits(self._images[self._chosen], self.form.tensors())
        loss = F.cross_entropy(logits, self._labels[self._chosen])
        loss.backward()
        self._optimizer.step()
        self._loss.copy_(loss.detach())

    def _hold(self, images: Tensor, labels: Tensor, batch: int) -> None:
        """Put the images where the step reads them; capture it where they have a new shape."""
        same = images.shape == self._images.shape and self._chosen.shape == (batch,)
        self._net.train()
        if same:
            self._images.copy_(images)
            self._labels.copy_(labels)
            return
        self._images = images.to(self._device).clone()
        self._labels = labels.to(self._device).clone()
        self._chosen = torch.zeros(batch, dtype=torch.long, device=self._device)
        for parameter in self.form.trained:
            parameter.grad = torch.zeros_like(parameter)
        if self._device.type == "cuda":
            self._capture()

    def _capture(self) -> None:
        side = torch.cuda.Stream(self._device)
        side.wait_stream(torch.cuda.current_stream(self._device))
        with torch.cuda.stream(side):
            for _ in range(3):
                self._step()
        torch.cuda.current_stream(self._device).wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            self._step()
        self._graph = graph.replay
