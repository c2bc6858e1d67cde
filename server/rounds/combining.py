"""From a round's accepted updates to the next coefficients of a task, or to none."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np

from recast_core.wire.codec import Vector
from recast_core.wire.messages import snap
from server.record.rows import FinishedRound
from server.rounds.accepted import without
from server.rounds.contribution import Contribution
from server.rounds.federation import Federation
from server.rounds.listening import mix_of, odd_mixes
from server.rounds.losses import losses_of
from server.rounds.plausible import implausible, spread
from server.rounds.probe import Score
from server.rounds.rules.stacked import lower_median, moved
from server.rounds.state import TaskState
from server.rounds.weights import limited

logger = logging.getLogger("recast.server")

# Of a probe's images: a round that loses so many of those that were right is not recorded.
WORSE = 0.2
# An update that by itself is so much behind the median of the others is left out.
BEHIND = 0.1
# Updates of a round that are tried one by one: the longest.
TRIED = 64
# Rounds of a task that are looked back upon.
REMEMBERED = 4
# Names in a line of the log.
_NAMED = 5


@dataclass(frozen=True, eq=False)
class Combined:
    """What a round comes to.

    Attributes:
        vector: coefficients ``[D]`` that a broadcast can carry.
        counted: the contributions that it is made of, by node.
        held_back: how much of a contribution counted where that was not all, by node.
    """

    vector: Vector
    counted: Mapping[int, Contribution]
    held_back: Mapping[int, float] = field(default_factory=dict)


def finished(
    state: TaskState, combined: Combined, seconds: float, max_weight: float
) -> FinishedRound:
    """The task's next round, after so many seconds, as it is to be recorded."""
    counted = combined.counted
    return FinishedRound(
        state.number,
        state.round + 1,
        combined.vector,
        sum(contribution.examples for contribution in counted.values()),
        len(counted),
        seconds,
        held_back={str(node): share for node, share in combined.held_back.items()},
        mix=state.mix or mix_of(counted, max_weight),
        losses=losses_of(counted),
    )


class Combining:
    """Makes the next coefficients of tasks, without what cannot be and what does harm."""

    def __init__(self, federation: Federation) -> None:
        self._federation = federation
        self._spread = spread(federation.start)

    def combine(self, state: TaskState, told: Mapping[int, Contribution]) -> Combined | None:
        """The next coefficients, or ``None`` where no contribution can be used.

        What is refused here is counted and logged as any other answer that was refused. Where the
        server has a probe, a result that is wildly worse than what was broadcast is made again
        without the contributions that are so by themselves; if it still is, the task stays where it
        was. A probe that judges each also leaves out what is much behind the others.

        Args:
            state: of the task.
            told: accepted contributions, by node.

        Raises:
            RefusedError: ``not-finite``, a result that has diverged.
        """
        leave_out = partial(without, self._federation, state)
        if self._federation.listens(state):
            told = leave_out(told, odd_mixes(told, len(state.classes)), "malformed")
        kept = leave_out(told, implausible(told, self._spread), "implausible")
        probe = self._federation.plan.probe
        score = probe.of(state) if probe and kept else None
        if probe is None or score is None:
            return self._together(state, kept) if kept or not told else None
        least = score(state.vector) - WORSE
        if probe.each:
            alone = self._alone(state, kept, score)
            usual = lower_median(np.array(list(alone.values()))) if len(alone) > 2 else 0.0
            kept = leave_out(kept, _below(max(least, usual - BEHIND), alone), "harmful")
        found = self._together(state, kept) if kept else None
        if found is None or score(found.vector) >= least:
            return found
        harmful = _below(least, self._alone(state, kept, score))
        kept = leave_out(kept, harmful, "harmful")
        found = self._together(state, kept) if kept else None
        if found is not None and score(found.vector) < least:
            return self._unmoved(state, found)
        return found

    def judged(self, state: TaskState, found: Combined) -> Combined:
        """What a round of hidden or private updates comes to: where it was, if that is far better.

        Only the result is looked at. A probe whose images are clients' own judges no private one.

        Args:
            state: of the task.
            found: what the round would come to.
        """
        plan = self._federation.plan
        probe = plan.probe
        if probe is None or (plan.privacy is not None and not probe.each):
            return found
        score = probe.of(state)
        if score is None or score(found.vector) >= score(state.vector) - WORSE:
            return found
        return self._unmoved(state, found)

    def _unmoved(self, state: TaskState, found: Combined) -> Combined:
        text = "round %d of task %s made the probe wildly worse: the coefficients stay"
        logger.warning(text, state.round + 1, state.name)
        held = dict.fromkeys(found.counted, 0.0)
        return replace(found, vector=state.vector.copy(), held_back=held)

    def _alone(
        self, state: TaskState, told: Mapping[int, Contribution], score: Score
    ) -> dict[int, float]:
        """What the probe says of contributions by themselves, of many of the longest."""
        start, bits = self._federation.start, self._federation.heads.bits
        nodes = sorted(told, key=lambda node: (-_length(told[node]), node))[:TRIED]
        return {
            node: score(snap(start, moved(state.vector, told[node].offsets), bits))
            for node in nodes
        }

    def _together(self, state: TaskState, told: Mapping[int, Contribution]) -> Combined:
        plan, nodes = self._federation.plan, list(told)
        weights = limited([told[node].examples for node in nodes], plan.max_weight)
        doubted = self._doubted(state)
        weighed = [
            told[node]
            if told[node].examples == weight and node not in doubted
            else replace(told[node], examples=weight, doubted=node in doubted)
            for node, weight in zip(nodes, weights, strict=True)
        ]
        found = plan.aggregate(state.vector, weighed)
        vector = snap(self._federation.start, found, self._federation.heads.bits)
        shares = dict(zip(nodes, plan.shares(weighed), strict=True))
        held = {node: share for node, share in sorted(shares.items()) if share < 1}
        if held:
            ids = [str(node) for node in list(held)[:_NAMED]]
            names = ", ".join(self._federation.names.get(one, one) for one in ids)
            more = f" and {len(held) - _NAMED} others" if len(held) > _NAMED else ""
            logger.info(
                "round %d of task %s: the rule shortened or left out what came from %s%s",
                state.round + 1, state.name, names, more,
            )  # fmt: skip
        return Combined(vector, told, held)

    def _doubted(self, state: TaskState) -> set[int]:
        """The nodes that were left out in at least half of the last rounds of a task.

        What is left of a run is the registry, so that a server that starts again doubts the same.
        """
        federation, first = self._federation, max(1, state.round - REMEMBERED + 1)
        out = federation.registry.left_out(federation.run, state.number, first)
        rounds = state.round - first + 1
        return {int(client) for client, times in out.items() if 2 * times >= rounds}


def _below(least: float, alone: Mapping[int, float]) -> dict[int, str]:
    return {
        node: f"by itself it takes the probe to {100 * found:.1f} %, below {100 * least:.1f} %"
        for node, found in alone.items()
        if found < least
    }


def _length(one: Contribution) -> float:
    return float(np.sqrt(np.square(one.offsets.astype(np.float64)).sum()))
