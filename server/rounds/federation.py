"""What the phases of a round share: the run, its tasks and its nodes."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from protos import recast_v1_pb2 as pb
from recast_core.secure.members import FEWEST, longest_hidden
from recast_core.start import Start
from recast_core.wire.codec import encoded_length
from recast_core.wire.messages import to_broadcast
from server.exchange.collect import Collector
from server.exchange.observer import Observer
from server.exchange.roster import Roster
from server.exchange.share import Share
from server.exchange.traffic import Traffic
from server.record.ledger import Ledger
from server.record.registry import Registry
from server.rounds.gathering import Exchange, Heads
from server.rounds.plan import RoundPlan
from server.rounds.privacy import Privacy
from server.rounds.state import TaskState


@dataclass(frozen=True)
class Federation:
    """The run, as each phase of a round sees it.

    ``names`` are what people call the clients, by their node ids, as far as that is known by now.
    """

    start: Start
    plan: RoundPlan
    heads: Heads
    registry: Registry
    run: int
    observer: Observer
    ledger: Ledger
    traffic: Traffic
    collector: Collector
    roster: Roster
    privacy: Privacy | None = None
    names: dict[str, str] = field(default_factory=dict)

    @property
    def exchange(self) -> Exchange:
        """The way to the clients."""
        return Exchange(self.start, self.traffic, self.collector)

    @property
    def longest_update(self) -> int:
        """Bytes that the message of an update may have."""
        if self.plan.secure:
            return longest_hidden(self.start.sent)
        return encoded_length(self.start.sent, self.plan.hyper.bits) + 64

    def shares(self, task: int) -> list[tuple[int, Share]]:
        """The nodes that have data for a task, by node id, with what they have."""
        return [
            (node, shares[task])
            for node, shares in sorted(self.roster.nodes.items())
            if task in shares
        ]

    def able(self, task: int) -> int:
        """How many nodes that are ready can train a task."""
        return sum(
            self.heads.can_train(task, shares[task])
            for shares in self.roster.nodes.values()
            if task in shares
        )

    def is_learnable(self, task: int) -> bool:
        """Whether enough nodes that are ready can train a task: one, or as many as a sum needs."""
        return self.able(task) >= (FEWEST if self.plan.secure else 1)

    def broadcast(self, state: TaskState, round_: int, *, train: bool) -> pb.ToClient:
        """The task's coefficients as a message."""
        keeps = self.heads.keeps(state.number)
        hyper = self.plan.hyper_of(round_, keeps=keeps) if train else None
        message = to_broadcast(
            self.start, state.number, round_, state.vector, hyper, self.heads.bits
        )
        if hyper is not None:
            if hyper.objective == "label-free":
                message.mix, message.wants_mix = state.mix, self.listens(state)
            return pb.ToClient(train=message)
        return pb.ToClient(evaluate=self.heads.complete(message))

    def listens(self, state: TaskState) -> bool:
        """Whether a task's next round asks for label mixes alone: the first, without labels.

        Not where an update may only be told with noise or in a sum, which a mix is not.
        """
        plan = self.plan
        objective = plan.hyper_of(1, keeps=self.heads.keeps(state.number)).objective
        hidden = plan.secure or plan.privacy is not None
        first = not state.round and not state.mix and plan.rounds > 1
        return objective == "label-free" and first and not hidden

    def answered(self, task: int, asked: Collection[int], by: Iterable[int]) -> None:
        """Note who has the head that a task learned for later ones, or keeps."""
        earlier = self.heads.earlier
        if earlier is not None and (task == earlier.number or self.heads.keeps(task)):
            earlier.answered(asked, by if earlier.head is not None else ())

    def tell_head(self, broadcast: pb.Broadcast, node: int) -> None:
        """Put into a task's message what its node is to know of the earlier head that it keeps."""
        if self.heads.earlier is not None and self.heads.keeps(broadcast.task):
            broadcast.kept.CopyFrom(self.heads.earlier.told(node))


def sample(
    nodes: Sequence[tuple[int, int]], count: int, seed: int, task: int, round_: int
) -> list[int]:
    """Draw the nodes that train a task in a round; every order of ``nodes`` gives the same.

    Each node draws a number of its own and the lowest win, so that a node that comes or goes moves
    at most one other.

    Args:
        nodes: node ids, each with the number that the node goes by on any grid.
        count: how many, 0 for all.
        seed: of the run.
        task: its number.
        round_: from 1.

    Returns:
        Node ids, ascending.
    """
    if count == 0 or len(nodes) <= count:
        return sorted(node for node, _ in nodes)

    def lot(entry: tuple[int, int]) -> tuple[int, int]:
        node, number = entry
        sequence = np.random.SeedSequence([seed, task, round_, number])
        return int(sequence.generate_state(1, np.uint64)[0]), node

    return sorted(node for node, _ in sorted(nodes, key=lot)[:count])
