"""Rounds of a federation without a transport: the product's messages, averages and falling rate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from experiments.studies.shift_fleet import Share
from experiments.studies.shift_learners import Learner
from protos.recast_v1_pb2 import Update
from recast_core.label_mix import expected_mix, fleet_mix, mean_prediction, pack_mix, unpack_mix
from recast_core.recipe import Recipe
from recast_core.start import Start
from recast_core.statistics import spread_choice
from recast_core.wire.messages import (
    Hyperparameters,
    from_broadcast,
    from_update,
    snap,
    to_broadcast,
    to_update,
    update_of,
)
from recast_core.wire.rounding import client_seed
from recast_core.wire.transforms import round_update
from server.rounds.aggregation import Contribution, average
from server.rounds.plan import RoundPlan

# More numbers than this stay on the device: their messages are sized, not sent.
MANY = 1_000_000
_BETAS, _TINY = (0.9, 0.99), 1e-6


@dataclass(frozen=True)
class Terms:
    """How a federation goes on.

    Attributes:
        rounds: how many.
        epochs: local passes in each.
        batch: images a step.
        rate: of the first round; it falls along half a cosine over the rounds.
        bits: of an update's numbers.
        label_free: there are no labels.
        server_rate: of Adam at the server (Reddi et al., ICLR 2021); 0 averages.
        alone: nobody sends anything; each client goes on from where it was.
        objective: what lowers where there are labels, by its name.
    """

    rounds: int = 10
    epochs: int = 2
    batch: int = 64
    rate: float = 0.1
    bits: int = 8
    label_free: bool = False
    server_rate: float = 0.0
    alone: bool = False
    objective: str = "cross-entropy"

    @property
    def plan(self) -> RoundPlan:
        """As the product's server has it."""
        objective = "label-free" if self.label_free else self.objective
        hyper = Hyperparameters(
            self.epochs, self.batch, self.rate, objective=objective, bits=self.bits
        )
        return RoundPlan(self.rounds, hyper, falls=True)


@dataclass(frozen=True, eq=False)
class Outcome:
    """What a federation ended with.

    Attributes:
        vectors: of each client: one and the same, but for those that were alone.
        update_bytes: of the longest serialised update; 0 where nothing is sent.
        up: serialised updates of a client over all rounds, bytes.
        down: serialised broadcasts, likewise.
    """

    vectors: Sequence[Tensor]
    update_bytes: int
    up: int
    down: int


def federate(learner: Learner, shares: Sequence[Share], terms: Terms, seed: int) -> Outcome:
    """Learn a domain together, or each client alone."""
    taking = [i for i, s in enumerate(shares) if terms.label_free or len(s.labels)]
    told = [shares[i] for i in taking]
    examples = [len(s.every) if terms.label_free else len(s.labels) for s in told]
    start = learner.start
    vector = start.initial_vector
    own: list[Tensor] = [vector] * len(told)
    post = _Large(start, terms) if start.sent > MANY else _Post(start, terms)
    listens = terms.label_free and terms.rounds > 1 and not terms.alone
    if listens:
        told = _listened(learner, told, post)
    for round_ in range(1 + listens, terms.rounds + 1):
        hyper = terms.plan.hyper_of(round_)
        recipe = Recipe(hyper.epochs, hyper.batch, hyper.learning_rate, objective=hyper.objective)
        seeds = [client_seed(seed, 1, round_, i) for i in taking]
        if terms.alone:
            own = learner.train(told, recipe, own, seeds)
            continue
        before = post.broadcast(vector, hyper, round_)
        trained = learner.train(told, recipe, [before] * len(told), seeds)
        vector = post.merge(before, trained, examples, hyper, round_)
    if terms.alone:
        everyone: list[Tensor] = [start.initial_vector] * len(shares)
        for place, found in zip(taking, own, strict=True):
            everyone[place] = found
        return Outcome(everyone, 0, 0, 0)
    return Outcome([vector] * len(shares), post.longest, post.up, post.down)


@torch.no_grad()
def _listened(learner: Learner, shares: Sequence[Share], post: _Post) -> list[Share]:
    """The shares after a first round without labels, each with the label mix expected of it."""
    start = learner.start.initial_vector
    mixes = []
    for share in shares:
        every = share.every[spread_choice(len(share.every))]
        features = learner.features(every, start, every if share.local else None)
        mixes.append(mean_prediction(learner.head(features)).cpu())
    weights = [len(share.every) for share in shares]
    fleet = fleet_mix([pack_mix(mix) for mix in mixes], weights)
    post.listen(fleet)
    known = unpack_mix(fleet, len(fleet))
    return [
        replace(share, mix=expected_mix(mix, known))
        for share, mix in zip(shares, mixes, strict=True)
    ]


class _Post:
    """Messages as the product writes and reads them, and their sizes."""

    def __init__(self, start: Start, terms: Terms) -> None:
        self._start, self._terms = start, terms
        self.longest = self.up = self.down = 0
        self._mix = b""
        self._momenta = (torch.zeros(()), torch.zeros(()))

    def listen(self, fleet: bytes) -> None:
        """A first round asks for label mixes alone; later ones tell ``fleet``."""
        hyper, initial = self._terms.plan.hyper_of(1), self._start.initial_vector.numpy()
        asked = to_broadcast(self._start, 1, 1, initial, hyper)
        asked.wants_mix = True
        told = Update(bank=self._start.prefix, task=1, round=1, examples=1000, mix=fleet)
        self.down, self.up = self.down + asked.ByteSize(), self.up + told.ByteSize()
        self._mix = fleet

    def broadcast(self, vector: Tensor, hyper: Hyperparameters, round_: int) -> Tensor:
        """The vector as it arrives."""
        message = to_broadcast(self._start, 1, round_, vector.numpy(), hyper)
        message.mix = self._mix
        self.down += message.ByteSize()
        return torch.from_numpy(from_broadcast(self._start, message))

    def merge(
        self,
        before: Tensor,
        trained: Sequence[Tensor],
        examples: Sequence[int],
        hyper: Hyperparameters,
        round_: int,
    ) -> Tensor:
        """The next vector, of what the updates said."""
        told = to_broadcast(self._start, 1, round_, before.numpy(), None)
        said, longest = [], 0
        for found, count in zip(trained, examples, strict=True):
            offsets = (found.cpu() - before).numpy()
            encoded = round_update(offsets, None, told, hyper, 0)
            update = update_of(self._start, 1, round_, count, encoded)
            longest = max(longest, update.ByteSize())
            said.append(Contribution(from_update(self._start, update, hyper.bits), count))
        self.longest = max(self.longest, longest)
        self.up += longest
        after = torch.from_numpy(average(before.numpy(), said))
        return torch.from_numpy(snap(self._start, self._moved(before, after).numpy()))

    def _moved(self, before: Tensor, after: Tensor) -> Tensor:
        """By the average itself, or by Adam along it."""
        rate = self._terms.server_rate
        if not rate:
            return after
        step = after - before
        first, second = self._momenta
        first = _BETAS[0] * first + (1 - _BETAS[0]) * step
        second = _BETAS[1] * second + (1 - _BETAS[1]) * step.square()
        self._momenta = first, second
        return before + rate * first / (second.sqrt() + _TINY)


class _Large(_Post):
    """Vectors that stay on the device, in float32; an update is serialised once, to be sized."""

    def __init__(self, start: Start, terms: Terms) -> None:
        super().__init__(start, terms)
        zeros = np.zeros(start.sent, np.float32)
        self.longest = to_update(start, 1, 1, 1000, zeros, 32).ByteSize()

    def broadcast(self, vector: Tensor, hyper: Hyperparameters, round_: int) -> Tensor:
        """See ``_Post``; the first round's vector is the start, which everybody has."""
        told = to_broadcast(self._start, 1, round_, self._start.initial_vector.numpy(), hyper)
        self.down += len(self._mix) + told.ByteSize() + (4 * self._start.sent if round_ > 1 else 0)
        return vector

    def merge(
        self,
        before: Tensor,
        trained: Sequence[Tensor],
        examples: Sequence[int],
        hyper: Hyperparameters,
        round_: int,
    ) -> Tensor:
        """See ``_Post``."""
        self.up += self.longest
        mean = torch.zeros_like(trained[0])
        for found, count in zip(trained, examples, strict=True):
            mean += found * (count / sum(examples))
        return self._moved(before.to(mean.device), mean)


def with_rate(terms: Terms, rate: float) -> Terms:
    """The same at another rate: the server's where there is one."""
    if terms.server_rate:
        return replace(terms, server_rate=rate)
    return replace(terms, rate=rate)
