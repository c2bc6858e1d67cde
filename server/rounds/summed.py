"""What hidden sums tell, and how they are to be counted."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from recast_core.privacy.clipping import Double
from recast_core.secure.levels import Integers, Levels, clipped_plan, plan, private_plan
from recast_core.wire.codec import Vector
from server.rounds.contribution import Contribution
from server.rounds.federation import Federation
from server.rounds.privacy import Clipped


@dataclass(frozen=True, eq=False)
class Summed:
    """What one group's sum tells.

    Attributes:
        told: the sum of integers, ``[D]`` and what is counted beside offsets.
        levels: how they were counted.
        examples: of the nodes whose updates are in it, as they say.
    """

    told: Integers
    levels: Levels
    examples: Mapping[int, int]

    @property
    def weight(self) -> int:
        """Of all its terms."""
        return sum(self.levels.weight(count) for count in self.examples.values())

    @property
    def total(self) -> Double:
        """The sum of the offsets from the broadcast, each times its weight, float64 ``[D]``."""
        return self.levels.total(self.told, self.weight)

    def contributions(self) -> dict[int, Contribution]:
        """The sum as if each of its nodes had sent the mean, float32 ``[D]``."""
        levels, mean = self.levels, self.levels.mean(self.told, self.weight)
        counted = {
            node: count if levels.alike else max(1, round(levels.weight(count) * levels.unit))
            for node, count in self.examples.items()
        }
        return {node: Contribution(mean, count) for node, count in counted.items()}


def contributions_of(sums: Sequence[Summed]) -> dict[int, Contribution]:
    """Those of all sums, by node."""
    return {node: one for told in sums for node, one in told.contributions().items()}


def moved_by(start: Vector, sums: Sequence[Summed]) -> Vector:
    """``start`` moved by the mean of all terms of sums, of one sum at least: float32 ``[D]``."""
    total = np.sum([one.total for one in sums], axis=0)
    return np.asarray(start + total / sum(one.weight for one in sums), np.float32)


def clipped_in(sums: Sequence[Summed]) -> Clipped:
    """What sums of clipped offsets tell together."""
    clients = sum(len(one.examples) for one in sums)
    # Who was within the clip has added 1, the others -1.
    inside = sum(int(one.told[-1]) for one in sums if one.levels.within)
    return Clipped(np.sum([one.total for one in sums], axis=0), (inside + clients) / 2, clients)


def counting(
    federation: Federation, task: int, round_: int, examples: Collection[int], members: int
) -> Levels:
    """How a round's hidden updates are to be counted.

    Args:
        federation: the run.
        task: its number.
        round_: from 1.
        examples: of every client that is asked, as it announced them.
        members: of the largest sum.
    """
    settings, numbers = federation.plan, federation.start.sent
    hyper = settings.hyper_of(round_)
    if federation.privacy is not None and numbers:
        turn = federation.privacy.turn(task)
        noise = turn.noise if federation.privacy.kind == "distributed" else 0.0
        within = federation.privacy.counts_within
        return private_plan(members, turn.clip, noise, numbers, hyper.bits, within=within)
    if settings.clip is not None:
        return clipped_plan(examples, members, settings.clip, numbers, hyper.bits)
    return plan(examples, members, hyper.learning_rate, hyper.bits)
