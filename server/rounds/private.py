"""The rounds of a private run: who is drawn, what a round may use, and what is made of it."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence

import numpy as np

from protos import recast_v1_pb2 as pb
from recast_core.privacy.clipping import length
from recast_core.wire.codec import Vector
from server.record.rows import Spending
from server.rounds.accepted import without
from server.rounds.aggregation import Contribution
from server.rounds.drawing import Able, Drawing
from server.rounds.federation import Federation, sample
from server.rounds.plan import RoundPlan
from server.rounds.privacy import Clipped, Privacy, Shape
from server.rounds.state import TaskState
from server.rounds.summed import Summed, clipped_in, moved_by


def privacy_of(plan: RoundPlan, numbers: int, spent: Sequence[Spending]) -> Privacy | None:
    """The budget of a run of which ``spent`` is recorded; ``None`` for a run without one.

    A clip that follows the clients is counted in lengths of one step of the optimiser in each of
    the ``numbers``, which the learning rate gives: so it falls as that does.
    """
    if plan.privacy is None:
        return None

    def unit(round_: int) -> float:
        return plan.hyper_of(round_).learning_rate * math.sqrt(max(numbers, 1))

    return Privacy(plan.privacy, spent, unit)


class PrivateDrawing(Drawing):
    """Draws as is accounted: of all clients that have images, with nobody's answers looked at.

    Who is overdue, or has failed, may be drawn again, and counts as nothing where no answer comes.
    """

    def __init__(self, count: int, seed: int, *, poisson: bool) -> None:
        """Draw ``count`` nodes, on average where ``poisson``; 0 for all.

        Args:
            count: of nodes for a task and round.
            seed: of all draws; clients do not know it.
            poisson: each is drawn by itself.
        """
        super().__init__(count, seed)
        self._wanted, self._secret, self._poisson = count, seed, poisson
        self._draws: Counter[tuple[int, int]] = Counter()

    def draw(self, able: Able, overdue: Collection[int], task: int, round_: int) -> list[int]:
        """The nodes to ask; others each time."""
        self._draws[task, round_] += 1
        # Counted in rounds that no run comes to, so that another try draws others.
        lot = round_ + (self._draws[task, round_] - 1) * (1 << 20)
        if not self._poisson or not 0 < self._wanted < len(able):
            return sample(able, self._wanted, self._secret, task, lot)
        rate = self._wanted / len(able)

        def drawn(number: int) -> bool:
            sequence = np.random.SeedSequence([self._secret, task, lot, number, 1])
            return int(sequence.generate_state(1, np.uint64)[0]) < rate * 2.0**64

        return sorted(node for node, number in able if drawn(number))


class PrivateRounds:
    """Between the rounds of a run and its budget."""

    def __init__(
        self,
        federation: Federation,
        privacy: Privacy,
        able: Callable[[TaskState], Sequence[tuple[int, int]]],
    ) -> None:
        """Prepare; ``able`` says which nodes can train a task."""
        self._federation, self._privacy, self._able = federation, privacy, able
        self._due: list[Spending] = []

    def begin(self, state: TaskState, every: Sequence[TaskState], body: pb.ToClient) -> None:
        """Take what the next round of a task needs out of the budget, before anybody is asked.

        Args:
            state: of the task.
            every: the tasks of the run.
            body: its broadcast, which is told of the noise that clients add.

        Raises:
            RecastError: the budget does not allow it.
        """
        federation, privacy, round_ = self._federation, self._privacy, state.round + 1
        able = len(self._able(state))
        # Once for the round that begins, then for all that are to come.
        wanted = federation.plan.clients_per_round
        clients = min(wanted, able) if wanted else able
        shapes = [self._shape(state, able)]
        for one in every:
            left = 0 if one.given_up else federation.plan.rounds - one.round
            shapes += [self._shape(one, able)] * (left - (one is state))
        privacy.begin(state.number, round_, clients, shapes)
        if privacy.kind == "local":
            hyper = body.train.hyperparameters
            hyper.transforms = f"{hyper.transforms} {privacy.transform(state.number)}".strip()

    def charge(self, state: TaskState) -> None:
        """Pay for a round whose clients add the noise, before they are asked.

        What they answer is seen whatever becomes of the round.
        """
        federation, privacy = self._federation, self._privacy
        if privacy.kind != "central":
            spent = [privacy.own(state.number, state.round + 1)]
            federation.registry.record_spendings(federation.run, spent)
            privacy.record(spent)

    def believed(
        self, state: TaskState, told: Mapping[int, Contribution]
    ) -> Mapping[int, Contribution]:
        """Contributions by node, without those longer than a client's own noise can make them.

        Only where clients add it: the server clips what it adds noise to itself. What it looks at
        has its noise already, so that looking costs nothing.
        """
        if self._privacy.kind != "local" or not told:
            return told
        most = self._privacy.longest(state.number, len(state.vector))
        odd = {
            node: f"an update of length {found:.3g}, with its noise {most:.3g} at most"
            for node, one in told.items()
            if (found := length(one.offsets)) > most
        }
        return without(self._federation, state, told, odd, "implausible")

    def move(self, state: TaskState, contributions: Sequence[Contribution]) -> Vector:
        """The next vector of a task, of updates that the server may read: ``[D]``."""
        if self._privacy.kind == "local":
            return self._federation.plan.aggregate(state.vector, contributions)
        return self._noisy(state, self._privacy.clipped(state.number, contributions))

    def move_by(self, state: TaskState, sums: Sequence[Summed]) -> Vector:
        """The next vector of a task, of hidden updates: ``[D]``."""
        if self._privacy.kind == "distributed":
            return moved_by(state.vector, sums)
        return self._noisy(state, clipped_in(sums))

    def _noisy(self, state: TaskState, told: Clipped) -> Vector:
        moved, spent = self._privacy.mean(state.number, state.round + 1, state.vector, told)
        self._due.append(spent)
        return moved

    def due(self) -> list[Spending]:
        """What the round has cost, to be recorded with what came of it; once."""
        found, self._due = self._due, []
        self._privacy.record(found)
        return found

    def _shape(self, state: TaskState, able: int) -> Shape:
        """Of a task's rounds; of one that nobody has told of, as if all that are here could."""
        count = len(self._able(state)) or able
        return self._privacy.shape(count, self._federation.plan.clients_per_round)
