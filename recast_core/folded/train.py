"""Train many clients together, each as it would train alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import islice

import torch
from torch import Tensor

from recast_core.folded.captured import CapturedStep, Graphs
from recast_core.folded.chunks import (
    Chunking,
    choose,
    equal_chunks,
    in_chunks,
    rows_at_once,
    useful_threads,
)
from recast_core.folded.fold import Fold
from recast_core.folded.images import ImageStore
from recast_core.folded.kinds import kinds_of
from recast_core.folded.schedule import FoldedClient, Schedule, schedule
from recast_core.folded.step import State, take_step
from recast_core.folded.threads import on_each_core
from recast_core.objectives import Objective
from recast_core.pulse import advance
from recast_core.recipe import Recipe


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


@dataclass(frozen=True, eq=False)
class How:
    """How the work is divided; it changes no result beyond rounding.

    Attributes:
        chunking: keeps the chosen size between calls; give ``size`` to choose it.
        workers: threads on a CPU, each of which trains a chunk on one core; 0 trains here, with
            all the threads that torch has for one product.
        finished: called after each chunk with its number of clients.
        graphs: captured steps of earlier trainings, and of this one; none are made where ``None``.
    """

    chunking: Chunking = field(default_factory=Chunking)
    workers: int = 0
    finished: Callable[[int], None] = lambda count: None
    graphs: Graphs | None = None


@dataclass(frozen=True, eq=False)
class _Chunk:
    """What every chunk of a training has in common."""

    store: ImageStore
    objective: Objective
    recipe: Recipe
    start: Tensor
    graphs: Graphs | None


def train(
    fold: Fold,
    store: ImageStore,
    clients: Sequence[FoldedClient],
    objective: Objective,
    recipe: Recipe,
    start: Tensor | None = None,
    how: How | None = None,
) -> Trained:
    """Train what each client has of its own by AdamW.

    Each client ends where ``recast_core.descent`` leaves it alone: in float32 to 1e-5, and among
    others to the last bit on a CPU, for chunks not given by hand and a thread for each product.

    Args:
        fold: the model.
        store: the images, prepared as the model takes them.
        clients: J shares of the store.
        objective: what training lowers; one that trains nothing of its own.
        recipe: epochs, batch and rate.
        start: the sent vector ``[D]`` to start from; the model's where ``None``.
        how: chunks, threads, and who is told.

    Raises:
        RecastError: a client whose labels the objective refuses, or that alone takes all memory.
    """
    if objective.trained:
        raise ValueError("an objective that trains something of its own does not fold")
    kinds = kinds_of(clients)
    for index in kinds.unlike:
        objective.check(clients[index].labels)
    how = how or How()
    result = Trained(
        torch.empty(len(clients), fold.sent_count),
        torch.empty(len(clients)),
        torch.zeros(len(clients), dtype=torch.bool),
    )
    if not clients:
        return result
    store.ensure(torch.cat([client.all_rows for client in clients]), how.workers)
    start = fold.start if start is None else start
    common = _Chunk(store, objective, recipe, start, how.graphs)

    def work(own: Fold, chunk: Sequence[int]) -> int:
        found, losses = _train_chunk(own, [clients[i] for i in chunk], common)
        where = torch.tensor(chunk)
        result.coefficients[where], result.losses[where] = found, losses
        result.finite[where] = torch.isfinite(found).all(1)
        return len(chunk)

    if fold.device.type == "cpu" and how.chunking.size is None:
        most = rows_at_once(store.input_bytes)
        workers = useful_threads(how.workers, most * store.input_bytes)
        sizes = kinds.sizes if objective.counts_classes else kinds.without_classes()
        chunks = equal_chunks(sizes, recipe.batch, workers, most)
        # One thread alone needs no copy.
        own = fold.copy if workers > 1 else (lambda: fold)
        for count in on_each_core(chunks, workers, own, work):
            how.finished(count)
    else:
        order = _by_steps(clients, recipe.batch)
        if how.chunking.size is None:
            how.chunking.size = _fitting([clients[i] for i in order], fold, common)
        in_chunks(order, how.chunking, lambda chunk: how.finished(work(fold, chunk)))
    return result


def _by_steps(clients: Sequence[FoldedClient], batch: int) -> list[int]:
    """Alike clients side by side: little padding, and those that end early leave the batch."""
    return sorted(
        range(len(clients)),
        key=lambda i: (-clients[i].steps(batch), -len(clients[i].labels), i),
    )


def _fitting(clients: Sequence[FoldedClient], fold: Fold, common: _Chunk) -> int:
    """How many of ``clients`` to train at once, by what one step of a few takes."""
    batch = common.recipe.batch
    rows = 2 * -(-max(-(-len(c.labels) // c.steps(batch)) for c in clients) // 2)

    def probe(count: int) -> None:
        _train_chunk(fold, clients[:count], common, only=1)

    return choose(fold.device, rows, len(clients), probe)


def _train_chunk(
    fold: Fold, clients: Sequence[FoldedClient], common: _Chunk, only: int | None = None
) -> tuple[Tensor, Tensor]:
    """Sent vectors ``[J, D]`` and losses ``[J]`` on the CPU; ``only`` so many steps."""
    steps = schedule(clients, common.objective, common.recipe, uniform=fold.uniform)
    values = fold.spread(common.start, len(clients))
    with fold.training():
        captured = _captured(fold, steps, values, common) if only is None else None
        if captured is None:
            state = State.at(values)
            _take_steps(fold, steps, state, common, only)
        else:
            captured.run(values, steps.uniform().to(fold.device), steps.shown())
            state = captured.state
        sent = fold.sent(state.values)
    return sent, (state.losses / state.counted.clamp_min(1)).cpu()


def _take_steps(
    fold: Fold, steps: Schedule, state: State, common: _Chunk, only: int | None
) -> None:
    shown = steps.shown()
    for images, step in zip(shown, islice(steps.to(fold.device).steps(), only), strict=False):
        take_step(fold, common.store, common.objective, state, step)
        if only is None:
            advance(images)


def _captured(fold: Fold, steps: Schedule, values: Tensor, common: _Chunk) -> CapturedStep | None:
    graphs = common.graphs
    if graphs is None or not graphs.suits(steps):
        return None
    plan = steps.uniform().to(fold.device)
    return graphs.find(fold, common.store, common.objective, plan, values)
