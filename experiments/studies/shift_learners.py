"""What trains in the study of shifts, and the folded engine as one of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor, nn

from experiments.studies.shift_fleet import Domain, Share
from recast_core.backbones import Preprocess
from recast_core.folded import BankFold, Chunking, How, ImageStore, SplitModel, train
from recast_core.objectives import objective_of
from recast_core.recipe import Recipe
from recast_core.start import Start
from recast_core.statistics import features_by, spread_choice

EVALUATED = 1024


class Learner(Protocol):
    """A model of one vector, for many clients."""

    @property
    def start(self) -> Start:
        """Where vectors count from."""
        ...

    @property
    def head(self) -> nn.Module:
        """The deployed classifier."""
        ...

    @property
    def by_images(self) -> bool:
        """Whether there are BatchNorms, which normalise by each client's own images."""
        ...

    def hold(self, domain: Domain) -> None:
        """Take its images from now on."""
        ...

    def train(
        self, shares: Sequence[Share], recipe: Recipe, vectors: Sequence[Tensor], seeds: list[int]
    ) -> list[Tensor]:
        """Every client's vector ``[D]``, trained from its own of ``vectors``."""
        ...

    def features(self, rows: Tensor, vector: Tensor, by: Tensor | None) -> Tensor:
        """Features ``[N, d]`` of rows, normalised by the statistics of the rows ``by``."""
        ...


class FoldedLearner:
    """A bank's coefficients, all clients as one batch: the product's folded engine."""

    def __init__(self, split: SplitModel, preprocess: Preprocess, *, half: bool) -> None:
        self._split, self._preprocess = split, preprocess
        self._fold = BankFold(split, half)
        self._classes = 0
        self._store: ImageStore | None = None

    @property
    def start(self) -> Start:
        """See ``Learner``."""
        return self._split.net.bank

    @property
    def head(self) -> nn.Module:
        """See ``Learner``."""
        return self._split.net.own_head

    @property
    def by_images(self) -> bool:
        """See ``Learner``."""
        return self._split.net.statistics is not None

    def hold(self, domain: Domain) -> None:
        """See ``Learner``."""
        net, self._classes = self._split.net, domain.classes
        self._store = ImageStore(domain.images, self._preprocess, self._split.prefix, net.device)
        self._store.ensure(torch.arange(len(domain.images)))

    def train(
        self, shares: Sequence[Share], recipe: Recipe, vectors: Sequence[Tensor], seeds: list[int]
    ) -> list[Tensor]:
        """See ``Learner``; all clients start from the first of ``vectors``."""
        assert self._store is not None
        free = recipe.objective == "label-free"
        clients = [
            share.client(seed, label_free=free) for share, seed in zip(shares, seeds, strict=True)
        ]
        objective = objective_of(recipe.objective, self.head, self._classes)
        how = How(Chunking(len(clients)))
        start = vectors[0].cpu()
        return list(
            train(self._fold, self._store, clients, objective, recipe, start, how).coefficients
        )

    @torch.no_grad()
    def features(self, rows: Tensor, vector: Tensor, by: Tensor | None) -> Tensor:
        """See ``Learner``."""
        net, store = self._split.net.eval(), self._store
        assert store is not None
        net.coefficients.load(vector)
        rows = rows.to(net.device)
        if by is None or net.statistics is None:
            return torch.cat([self._split.suffix(store.inputs(p)) for p in rows.split(EVALUATED)])
        giving = store.inputs(by[spread_choice(len(by))].to(net.device))
        wanted = store.inputs(rows)
        return features_by(self._split.suffix, net.statistics, (giving, wanted), EVALUATED)
