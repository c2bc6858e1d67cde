"""Which images a client sees in which step, for every training loop."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from recast_core.recipe import Recipe


def shuffled(count: int, epochs: int, generator: torch.Generator) -> Tensor:
    """The order of ``count`` images in each epoch: int64 ``[E, N]``."""
    if epochs == 1:
        return torch.randperm(count, generator=generator).unsqueeze(0)
    orders = [torch.randperm(count, generator=generator) for _ in range(epochs)]
    return torch.stack(orders) if orders else torch.empty(0, count, dtype=torch.int64)


def picks(count: int, of: int, generator: torch.Generator) -> Tensor:
    """``count`` of ``of`` images without a label, drawn with replacement: int64 ``[count]``."""
    return torch.randint(of, (count,), generator=generator)


def batches(labels: Tensor, recipe: Recipe, seed: int) -> Iterator[tuple[int, Tensor]]:
    """The steps of a client alone: epoch, and rows of its images.

    Batches are as equal as can be, so that none is a leftover of one image. Images without a label
    fill up batches of fewer than ``recipe.batch``; where none has a label, all count.

    Args:
        labels: int64 ``[N]``, -1 for none.
        recipe: epochs and batch.
        seed: of the shuffling.
    """
    generator = torch.Generator().manual_seed(seed)
    known = (labels >= 0).nonzero().squeeze(1).cpu()
    filler = (labels < 0).nonzero().squeeze(1).cpu()
    if not len(known):
        known, filler = filler, known
    orders = shuffled(len(known), recipe.epochs, generator)
    for epoch, order in enumerate(orders):
        for chosen in torch.tensor_split(order, max(1, -(-len(known) // recipe.batch))):
            rows = known[chosen]
            if len(filler) and len(rows) < recipe.batch:
                few = filler[picks(recipe.batch - len(rows), len(filler), generator)]
                rows = torch.cat([rows, few])
            yield epoch, rows
