"""Clients side by side on one GPU: copies of a learner, each a thread with a stream of its own.

One client's steps are many small products, which leave most of a large GPU idle.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import torch
from torch import Tensor, nn

from experiments.studies.shift_captured import CapturedLearner
from experiments.studies.shift_fleet import Domain, Share
from recast_core.recipe import Recipe
from recast_core.start import Start


class Lanes:
    """Learners of one kind, between which clients are dealt; the first answers for all.

    Args:
        learners: alike, with nothing in common that trains.
    """

    def __init__(self, learners: Sequence[CapturedLearner]) -> None:
        self._learners = list(learners)
        device = learners[0].device
        self._device = device
        cuda = device.type == "cuda"
        self._streams = [torch.cuda.Stream(device) if cuda else None for _ in learners]

    @property
    def start(self) -> Start:
        """See ``Learner``."""
        return self._learners[0].start

    @property
    def head(self) -> nn.Module:
        """See ``Learner``."""
        return self._learners[0].head

    @property
    def by_images(self) -> bool:
        """See ``Learner``."""
        return self._learners[0].by_images

    def hold(self, domain: Domain) -> None:
        """See ``Learner``."""
        for learner in self._learners:
            learner.hold(domain)

    def train(
        self, shares: Sequence[Share], recipe: Recipe, vectors: Sequence[Tensor], seeds: list[int]
    ) -> list[Tensor]:
        """See ``Learner``; what a client learns does not depend on its lane."""
        count = len(self._learners)
        for learner in self._learners[: len(shares)]:
            # Capturing suffers no other thread's work.
            learner.prepare({share.local for share in shares}, recipe)
        self._wait()
        found: list[Tensor] = [torch.empty(0)] * len(shares)

        def run(lane: int) -> None:
            mine = range(lane, len(shares), count)
            with ExitStack() as within:
                stream = self._streams[lane]
                if stream is not None:
                    within.enter_context(torch.cuda.stream(stream))
                made = self._learners[lane].train(
                    [shares[i] for i in mine], recipe,
                    [vectors[i] for i in mine], [seeds[i] for i in mine],
                )  # fmt: skip
                if stream is not None:
                    stream.synchronize()
            for place, vector in zip(mine, made, strict=True):
                found[place] = vector

        with ThreadPoolExecutor(count) as pool:
            list(pool.map(run, range(min(count, len(shares)))))
        return found

    def features(self, rows: Tensor, vector: Tensor, by: Tensor | None) -> Tensor:
        """See ``Learner``."""
        return self._learners[0].features(rows, vector, by)

    def _wait(self) -> None:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
