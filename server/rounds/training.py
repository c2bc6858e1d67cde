"""The train phase of a round: ask, check, average, record."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence

from flwr.app import Message
from flwr.serverapp import Grid

from protos import recast_v1_pb2 as pb
from recast_core.errors import RecastError
from recast_core.text import how_many
from recast_core.wire.codec import Vector
from recast_core.wire.messages import RefusedError, snap
from server.exchange.traffic import Topic
from server.record.rows import FinishedRound
from server.rounds.attendance import say_unable
from server.rounds.combining import Combined, Combining, finished
from server.rounds.contribution import Contribution
from server.rounds.drawing import Drawing
from server.rounds.failure import Failure
from server.rounds.federation import Federation
from server.rounds.hidden import hidden_sums
from server.rounds.losses import mean_loss, with_heard
from server.rounds.nearest import offer
from server.rounds.opened import open_contributions
from server.rounds.private import PrivateDrawing, PrivateRounds
from server.rounds.secure import SecureSums
from server.rounds.state import TaskState
from server.rounds.summed import Summed, contributions_of, moved_by

logger = logging.getLogger("recast.server")

# A round that brought no update is tried again this often, unless asking again cannot help.
RETRIES = 2


class Training:
    """Trains a round of several tasks at once; each is aggregated for itself."""

    def __init__(self, federation: Federation, expendable: int) -> None:
        """Prepare; tasks with numbers above ``expendable`` may fail without ending the run."""
        self._federation = federation
        self._expendable = expendable
        self._asked: dict[tuple[int, int], int] = {}
        # Who was to be asked for a task in this round: not all can hide, by its number.
        self._drawn: dict[int, set[int]] = {}
        # Where else a task may have started in this round, by its number.
        self._offered: dict[int, dict[int, Vector]] = {}
        self._learned: Sequence[TaskState] = ()
        self._said: set[int] = set()
        # The last round in which a node's update of a task counted.
        self._counted: dict[tuple[int, int], int] = {}
        plan = federation.plan
        self._combining = Combining(federation)
        self._drawing = Drawing(plan.clients_per_round, plan.sampling_seed)
        self._private: PrivateRounds | None = None
        if federation.privacy is not None and plan.privacy is not None:
            self._private = PrivateRounds(federation, federation.privacy, self._able)
            self._drawing = PrivateDrawing(
                plan.clients_per_round, plan.sampling_seed, poisson=plan.privacy.poisson
            )
        self._secure = SecureSums(federation) if plan.secure else None
        self._began = 0.0
        self._mark = 0

    def questions(
        self, grid: Grid, states: Sequence[TaskState], every: Sequence[TaskState] = ()
    ) -> Iterator[Message]:
        """A broadcast of each task to the nodes that train it in its next round.

        What the round needs is prepared now, each message when its turn comes.

        Args:
            grid: the way to the clients, where they are to hide their updates.
            states: the tasks.
            every: all tasks of the run, for a first round to start from.
        """
        self._learned = [state for state in every if state not in states]
        federation = self._federation
        self._began = time.monotonic()
        self._mark = len(federation.ledger.refusals_since())
        self._asked, self._offered = {}, {}
        planned: list[tuple[pb.ToClient, Topic, Sequence[int], int]] = []
        bodies = [(one, federation.broadcast(one, one.round + 1, train=True)) for one in states]
        # All are planned for before any is paid for, which would be planned for once more.
        afforded = [(one, body) for one, body in bodies if self._affords(one, every, body)]
        for state, body in afforded:
            round_ = state.round + 1
            nodes = self.nodes(state)
            self._drawn[state.number] = set(nodes)
            self._offered[state.number] = offer(federation, self._learned, body, state)
            if self._secure is not None:
                shares = dict(federation.shares(state.number))
                nodes, told = self._secure.prepare(grid, state, {n: shares[n] for n in nodes})
                body.train.secure.CopyFrom(told)
            if self._private is not None and nodes:
                self._private.charge(state)
            federation.observer.round_started(
                state.name, round_, federation.plan.rounds, len(nodes)
            )
            self._asked |= dict.fromkeys(((node, state.number) for node in nodes), round_)
            planned.append((body, Topic(state.name, round_), nodes, state.round))
        return (message for one in planned for message in self._sent(grid, *one))

    def _sent(
        self, grid: Grid, body: pb.ToClient, topic: Topic, nodes: Sequence[int], rounds: int
    ) -> Iterator[Message]:
        """The messages that carry a broadcast to its nodes; ``rounds`` have been recorded."""
        federation, number = self._federation, body.train.task
        if not federation.plan.hyper.error_feedback and federation.heads.earlier is None:
            yield from federation.traffic.send_all(nodes, body, topic, grid)
            return
        for node in nodes:
            if federation.plan.hyper.error_feedback:
                counted = self._counted.get((node, number), 0)
                body.train.counted = counted if counted <= rounds else 0
            federation.tell_head(body.train, node)
            yield federation.traffic.send(node, body, topic)

    def _affords(self, state: TaskState, every: Sequence[TaskState], body: pb.ToClient) -> bool:
        """Whether the privacy budget allows a round; a task that was added is given up if not.

        Raises:
            RecastError: it does not, and the task is one that must be learned.
        """
        if self._private is None or not self._federation.start.sent:
            return True
        try:
            self._private.begin(state, every, body)
        except RecastError as error:
            if state.number <= self._expendable:
                raise
            logger.warning("task %s is given up: %s", state.name, error)
            state.given_up = True
            return False
        return True

    def nodes(self, state: TaskState) -> list[int]:
        """The nodes that train a task in its next round; none where only a head is learned."""
        federation = self._federation
        if not federation.start.sent:
            return []
        if state.number not in self._said:
            self._said.add(state.number)
            say_unable(federation, state)
        overdue = federation.collector.overdue
        return self._drawing.draw(self._able(state), overdue, state.number, state.round + 1)

    def _able(self, state: TaskState) -> list[tuple[int, int]]:
        """The nodes that can train a task, each with the number that it goes by."""
        federation = self._federation
        numbers = federation.roster.numbers()
        return [
            (node, numbers[node])
            for node, share in federation.shares(state.number)
            if federation.heads.can_train(state.number, share)
        ]

    def finish(self, grid: Grid, states: Sequence[TaskState], replies: Iterable[Message]) -> int:
        """Average each task's offsets, and record all of the round before anything else happens.

        Returns:
            How many examples were trained on.

        Raises:
            RecastError: a task diverged, or nobody has sent an update of it that can be used.
        """
        federation = self._federation
        sums: Mapping[int, Sequence[Summed]] = {}
        if self._secure is None:
            found = open_contributions(federation, states, replies, self._asked, self._offered)
            if self._private is None:
                found = with_heard(grid, found, {one.number: one.round + 1 for one in states})
        else:
            sums = hidden_sums(federation, self._secure, grid, states, replies, self._asked)
            found = {task: contributions_of(told) for task, told in sums.items()}
        for state in states:
            federation.answered(state.number, self._nodes_asked(state.number), found[state.number])
        rounds = []
        lost: list[tuple[TaskState, str]] = []
        for state in states:
            if state.given_up:
                continue
            try:
                combined = self._combine(state, found[state.number], sums.get(state.number, ()))
            except RefusedError as refused:
                lost.append((state, f"{refused}; lower the learning rate"))
                continue
            if combined is None:
                if (reason := self._missed(state)) is not None:
                    lost.append((state, reason))
                continue
            seconds = time.monotonic() - self._began
            rounds.append(finished(state, combined, seconds, federation.plan.max_weight))
        # What was sent in vain is recorded with the round that succeeds, or at the end.
        if rounds:
            self._record(states, rounds)
        for state, reason in lost:
            if state.number <= self._expendable:
                raise RecastError(reason)
            logger.warning("task %s is given up: %s", state.name, reason)
            state.given_up = True
        return sum(row.examples for row in rounds)

    def _combine(
        self, state: TaskState, told: Mapping[int, Contribution], sums: Sequence[Summed]
    ) -> Combined | None:
        """The task's next coefficients, ``None`` where nobody has sent what can be used."""
        federation = self._federation
        if self._private is not None:
            told = self._private.believed(state, told)
        if not told and federation.start.sent and not self._nobody_drawn(state):
            return None
        if self._private is None and self._secure is None:
            combined = self._combining.combine(state, told)
        else:
            # Comparing updates would cost a budget that nobody counts, or see what is hidden.
            moved = self._moved(state, list(told.values()), sums)
            vector = snap(federation.start, moved, federation.heads.bits)
            combined = self._combining.judged(state, Combined(vector, told))
        if combined is None:
            return None
        if federation.plan.hyper.error_feedback:
            counted = {(node, state.number) for node in combined.counted}
            self._counted |= {key: self._asked[key] for key in counted}
        still = not any(one.offsets.any() for one in combined.counted.values())
        if still and combined.counted and not federation.listens(state):
            logger.warning(
                "round %d of task %s moved nothing: %s with too few images of a class to train on "
                "some and judge by others",
                state.round + 1, state.name, how_many(len(combined.counted), "client"),
            )  # fmt: skip
        return combined

    def _moved(
        self, state: TaskState, told: Sequence[Contribution], sums: Sequence[Summed]
    ) -> Vector:
        """A task's next vector, where updates are hidden or have a budget."""
        if self._private is not None and self._federation.start.sent:
            return self._private.move_by(state, sums) if sums else self._private.move(state, told)
        if sums:
            return moved_by(state.vector, sums)
        return self._federation.plan.aggregate(state.vector, told)

    def _nobody_drawn(self, state: TaskState) -> bool:
        """Whether the round is one of noise alone, since the lot fell on nobody."""
        drawn = any(task == state.number for _, task in self._asked)
        noisy = self._private is not None and self._secure is None
        return noisy and bool(self._able(state)) and not drawn

    def _record(self, states: Sequence[TaskState], rounds: Sequence[FinishedRound]) -> None:
        """Commit the rounds, then let the tasks go on from them."""
        federation = self._federation
        federation.registry.record_rounds(
            federation.run,
            rounds,
            federation.ledger.drain(),
            federation.ledger.drain_refusals(),
            [] if self._private is None else self._private.due(),
        )
        # A round is over when it can no longer be lost: averaging and recording it are part of it.
        seconds = time.monotonic() - self._began
        which = [(row.task, row.round) for row in rounds]
        federation.registry.record_seconds(federation.run, which, seconds)
        by_number = {state.number: state for state in states}
        for row in rounds:
            state = by_number[row.task]
            state.vector, state.round, state.attempts = row.coefficients, row.round, 0
            state.mix = row.mix
            self._drawing.forget(state.number)
            if (loss := mean_loss(row.losses)) is not None:
                federation.observer.learned(state.name, row.round, loss, len(row.losses))
            federation.observer.round_finished(state.name, state.round, row.clients, seconds)

    def _nodes_asked(self, task: int) -> set[int]:
        return {node for node, asked in self._asked if asked == task}

    def _missed(self, state: TaskState) -> str | None:
        """Count a round without an update; why another try is pointless, or ``None``.

        What one node answers is that node's: others are asked where there are any.
        """
        federation, what = self._federation, f"round {state.round + 1} of task {state.name!r}"
        drawn = self._drawn[state.number]
        if self._drawing.failed(state.number, drawn, self._able(state)):
            logger.warning("no update in %s: asking others", what)
            return None
        self._drawing.forget(state.number)
        state.attempts += 1
        failure = Failure.of(federation.ledger.refusals_since(self._mark), state.name)
        if not failure.is_lasting(drawn) and state.attempts <= RETRIES:
            logger.warning("no update in %s: asking again", what)
            return None
        return failure.reason(what, state.attempts, hidden=self._secure is not None)
