"""A fleet that is like one outside: clients away, answers lost, slow machines, slow links.

Every decision hangs on the run's seed, the task, the round and the client alone, never on the order
of messages.
"""

from __future__ import annotations

import math
import zlib
from dataclasses import dataclass
from typing import Literal

import numpy as np

from experiments.engines.radio import Radio, radio
from recast_core.errors import RecastError

Fate = Literal["away", "dropped", "straggler", "answers"]


@dataclass(frozen=True)
class Fleet:
    """What befalls simulated clients.

    Attributes:
        availability: probability that a client is there in a round.
        drop_out: probability that a client which trained loses its answer.
        stragglers: sigma of the lognormal spread of the clients' speeds; 0 makes all alike.
        round_limit: simulated seconds after which an answer is lost; 0 for none.
        radio: preset of `experiments.engines.radio`, or empty: transfers take no time.
        image_seconds: simulated seconds that the median client trains on one image once.
    """

    availability: float = 1.0
    drop_out: float = 0.0
    stragglers: float = 0.0
    round_limit: float = 0.0
    radio: str = ""
    image_seconds: float = 0.01

    def __post_init__(self) -> None:
        """Refuse what is out of range.

        Raises:
            RecastError: a value out of range, or an unknown radio.
        """
        for name in ("availability", "drop_out"):
            if not 0 <= getattr(self, name) <= 1:
                raise RecastError(f"{name.replace('_', '-')} {getattr(self, name)}: use 0 to 1")
        for name in ("stragglers", "round_limit", "image_seconds"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= 0):
                raise RecastError(f"{name.replace('_', '-')} {value}: use a number of 0 or more")
        if self.radio:
            radio(self.radio)

    @property
    def link(self) -> Radio | None:
        """The uplink, or None."""
        return radio(self.radio) if self.radio else None

    def away(self, seed: int, task: str, round_: int, client: int, attempt: int = 0) -> bool:
        """Whether a client is away in a round, asked again for the ``attempt``-th time."""
        return _draw(0, seed, task, round_, client, attempt).random() >= self.availability

    def drops(self, seed: int, task: str, round_: int, client: int, attempt: int = 0) -> bool:
        """Whether the answer of a client that trained is lost."""
        return _draw(1, seed, task, round_, client, attempt).random() < self.drop_out

    def slowness(self, seed: int, client: int) -> float:
        """The client's time per image over the median client's, in all tasks and rounds."""
        return float(np.exp(self.stragglers * _draw(2, seed, "", 0, client).standard_normal()))

    def seconds(self, seed: int, client: int, images: int, size: int) -> float:
        """Simulated seconds from the question until ``size`` bytes of answer have arrived.

        Args:
            seed: of the run.
            client: number, from 0.
            images: trained on, counted once for each pass.
            size: bytes of the answer's message.
        """
        work = images * self.image_seconds * self.slowness(seed, client)
        return work + (self.link.seconds(size) if self.link else 0.0)

    def fate(
        self,
        seed: int,
        task: str,
        round_: int,
        client: int,
        images: int,
        size: int,
        attempt: int = 0,
    ) -> Fate:
        """What becomes of a client's answer; being away comes first, then loss, then lateness."""
        if self.away(seed, task, round_, client, attempt):
            return "away"
        if self.drops(seed, task, round_, client, attempt):
            return "dropped"
        late = self.round_limit and self.seconds(seed, client, images, size) > self.round_limit
        return "straggler" if late else "answers"


def _draw(
    what: int, seed: int, task: str, round_: int, client: int, attempt: int = 0
) -> np.random.Generator:
    key = (seed, what, zlib.crc32(task.encode()), round_, client, attempt)
    return np.random.default_rng(np.random.SeedSequence(key))
