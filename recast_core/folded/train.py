"""Fit the coefficients of many clients together, each as ``fit`` would alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import islice

import torch
from torch import Tensor, nn

from recast_core.fitting import check_labels
from recast_core.folded.adamw import adamw_step
from recast_core.folded.chunks import Chunking, choose, equal_chunks, in_chunks
from recast_core.folded.images import ImageStore
from recast_core.folded.objective import folded_loss
from recast_core.folded.precision import bfloat16
from recast_core.folded.schedule import FoldedClient, schedule
from recast_core.folded.split import SplitModel, copy_split
from recast_core.folded.threads import on_each_core

_CPU_EVALUATION_BATCH = 64
_CUDA_EVALUATION_BATCH = 2048


@dataclass(frozen=True, eq=False)
class Trained:
    """What training found, client by client, on the CPU.

    Attributes:
        coefficients: as they are sent, float32 ``[J, D]``.
        losses: mean training loss of the last epoch ``[J]``.
        finite: bool ``[J]``; ``False`` where training ended in NaN or infinity.
    """

    coefficients: Tensor
    losses: Tensor
    finite: Tensor


@dataclass(frozen=True)
class _Recipe:
    epochs: int
    batch: int
    learning_rate: float
    start: Tensor
    half: bool
    compiled: bool


def train(
    model: SplitModel,
    store: ImageStore,
    clients: Sequence[FoldedClient],
    classes: int,
    *,
    epochs: int = 2,
    batch: int = 32,
    learning_rate: float = 1e-2,
    start: Tensor | None = None,
    half: bool = False,
    compiled: bool = False,
    chunking: Chunking | None = None,
    workers: int = 0,
    finished: Callable[[int], None] = lambda count: None,
) -> Trained:
    """Train every client's coefficients by AdamW on the split-ridge loss.

    Each client gets the batches, steps and moments that ``fit`` gives it alone. In float32 the
    coefficients agree with those of any other chunk to 1e-5, and on a CPU, where the chunk is not
    given by hand, to the last bit, as long as a client's products run in one thread.

    Args:
        model: divided; its coefficients are left as they were.
        store: the images.
        clients: J shares of the store.
        classes: of the task.
        epochs: passes over each client's images.
        batch: images per step of a client.
        learning_rate: of the coefficients.
        start: the sent vector ``[D]`` that every client starts from; the bank's where ``None``.
        half: bfloat16 products. Coefficients, loss and optimizer stay in float32.
        compiled: ``torch.compile`` the model and the loss.
        chunking: keeps the chosen size between calls; give ``size`` to choose it.
        workers: threads on a CPU, each of which trains a chunk on one core; 0 trains here, with
            all the threads that torch has for one product.
        finished: called after each chunk with its number of clients.

    Raises:
        RecastError: a client that has no images or one class only, or that does not fit into
            memory alone.
    """
    for client in clients:
        check_labels(client.labels, classes)
    net = model.net.eval()
    if start is None:
        start = net.bank.initial_vector
    recipe = _Recipe(epochs, batch, learning_rate, start, half, compiled)
    result = Trained(
        torch.empty(len(clients), net.coefficients.sent_count),
        torch.empty(len(clients)),
        torch.zeros(len(clients), dtype=torch.bool),
    )
    if not clients:
        return result
    store.ensure(torch.cat([client.rows for client in clients]), workers)

    def work(models: SplitModel, chunk: Sequence[int]) -> None:
        found, losses = _train_chunk(models, store, [clients[i] for i in chunk], recipe)
        where = torch.tensor(chunk)
        result.coefficients[where] = found
        result.losses[where] = losses
        result.finite[where] = torch.isfinite(found).all(1)

    chunking = chunking or Chunking()
    if net.device.type == "cpu" and chunking.size is None:
        sizes = [(len(client.labels), len(client.labels.unique())) for client in clients]
        chunks = equal_chunks(sizes, batch, workers)
        own = (lambda: copy_split(model)) if workers else (lambda: model)
        for chunk, _ in zip(chunks, on_each_core(chunks, workers, own, work), strict=True):
            finished(len(chunk))
        return result

    # Alike clients side by side: little padding, and those that end early leave the batch.
    order = sorted(
        range(len(clients)),
        key=lambda i: (-clients[i].steps(batch), -len(clients[i].labels), i),
    )
    if chunking.size is None:
        rows = 2 * -(-max(-(-len(c.labels) // c.steps(batch)) for c in clients) // 2)

        def probe(count: int) -> None:
            few = [clients[i] for i in order[:count]]
            _train_chunk(model, store, few, recipe, only=1)

        chunking.size = choose(net.device, rows, len(clients), probe)

    def work_here(chunk: Sequence[int]) -> None:
        work(model, chunk)
        finished(len(chunk))

    in_chunks(order, chunking, work_here)
    return result


@torch.no_grad()
def features_at(
    model: SplitModel, store: ImageStore, rows: Tensor, vector: Tensor, workers: int = 0
) -> Tensor:
    """Features ``[N, d]`` of ``rows`` with coefficients ``vector`` ``[D]``, on the device."""
    store.ensure(rows, workers)
    net = model.net.eval()
    net.coefficients.load(vector)
    cuda = net.device.type == "cuda"
    parts = rows.to(net.device).split(_CUDA_EVALUATION_BATCH if cuda else _CPU_EVALUATION_BATCH)

    @torch.no_grad()
    def work(suffix: nn.Module, part: Tensor) -> Tensor:
        features: Tensor = suffix(store.inputs(part))
        return features

    return torch.cat([*on_each_core(parts, 0 if cuda else workers, lambda: model.suffix, work)])


def _train_chunk(
    model: SplitModel,
    store: ImageStore,
    clients: Sequence[FoldedClient],
    recipe: _Recipe,
    only: int | None = None,
) -> tuple[Tensor, Tensor]:
    """Coefficients ``[J, D]`` and losses ``[J]`` on the CPU; ``only`` so many steps."""
    net, device = model.net, model.net.device
    coefficients = net.coefficients
    steps = schedule(
        clients, recipe.epochs, recipe.batch, recipe.learning_rate, uniform=recipe.compiled
    ).to(device)
    own = coefficients.flat
    with torch.no_grad():
        values = coefficients._spread(recipe.start.to(device).expand(len(clients), -1))
    mean, square = torch.zeros_like(values), torch.zeros_like(values)
    losses = torch.zeros(len(clients), device=device)
    counted = torch.zeros(len(clients), device=device)
    loss_of = _compiled_loss(model) if recipe.compiled else _loss
    try:
        with bfloat16(net) if recipe.half else nullcontext():
            for step in islice(steps.steps(), only):
                active = len(step.rows)
                if active != len(coefficients.flat) or coefficients.flat is own:
                    # Of its own: autograd remembers the shape that a parameter had.
                    coefficients.flat = nn.Parameter(values[:active])
                inputs = store.inputs(step.rows.flatten())
                loss = loss_of(model.suffix, inputs, step.labels, step.real)
                (gradient,) = torch.autograd.grad(loss.sum(), coefficients.flat)
                adamw_step(
                    values[:active], mean[:active], square[:active], gradient,
                    step.step_size, step.root, step.moves,
                )  # fmt: skip
                weight = (step.last & step.moves)[:, 0].float()
                losses[:active] += weight * loss.detach()
                counted[:active] += weight
        coefficients.flat = nn.Parameter(values)
        sent = coefficients.sent().cpu()
    finally:
        coefficients.flat = own
    return sent, (losses / counted.clamp_min(1)).cpu()


def _loss(suffix: nn.Module, inputs: Tensor, labels: Tensor, real: Tensor) -> Tensor:
    features = suffix(inputs).float().view(*labels.shape, -1)
    with torch.autocast(features.device.type, enabled=False):
        return folded_loss(features, labels, real)


_compiled: dict[int, tuple[SplitModel, Callable[..., Tensor]]] = {}


def _compiled_loss(model: SplitModel) -> Callable[..., Tensor]:
    if id(model) not in _compiled:
        _compiled.clear()
        _compiled[id(model)] = model, torch.compile(_loss, dynamic=False)
    return _compiled[id(model)][1]
