"""Which clients are alike: found for all of them at once, since each by itself takes as long."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from recast_core.folded.schedule import FoldedClient


@dataclass(frozen=True)
class Kinds:
    """What decides which clients of a training may be in one batch.

    Attributes:
        sizes: of each images, classes, whether its BatchNorms take its own images, and images
            without a label.
        unlike: indices of clients, one of each smallest and largest label that occur together.
    """

    sizes: list[tuple[int, int, bool, int]]
    unlike: list[int]

    def without_classes(self) -> list[tuple[int, int, bool, int]]:
        """``sizes`` as if all had as many classes."""
        return [(images, 0, local, fillers) for images, _, local, fillers in self.sizes]


def kinds_of(clients: Sequence[FoldedClient]) -> Kinds:
    """Of clients, in their order."""
    if not clients:
        return Kinds([], [])
    counts = [one.labels.numel() for one in clients]
    labels = torch.cat([one.labels for one in clients]).numpy()
    owners = np.repeat(np.arange(len(clients)), counts)
    least = int(labels.min(initial=0))
    width = int(labels.max(initial=0)) - least + 1
    pairs = np.unique(owners * width + (labels - least))
    whose, names = pairs // width, pairs % width
    classes = np.bincount(whose, minlength=len(clients))
    # The pairs are in order: a client's first is of its smallest label, its last of the largest.
    ends = np.cumsum(classes)
    low, high = np.full(len(clients), -1), np.full(len(clients), -1)
    some = classes > 0
    low[some], high[some] = names[(ends - classes)[some]], names[ends[some] - 1]
    _, unlike = np.unique(np.stack([low, high], 1), axis=0, return_index=True)
    rest = ((one.local, one.filler.numel()) for one in clients)
    sizes = [
        (count, int(known), local, fillers)
        for count, known, (local, fillers) in zip(counts, classes.tolist(), rest, strict=True)
    ]
    return Kinds(sizes, sorted(unlike.tolist()))
