"""The strategy of a federation: tasks one after another, each task's coefficients averaged."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean

from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy

from protos import recast_v1_pb2 as pb
from recast_core.codec import Vector, encoded_length
from recast_core.errors import RecastError
from recast_core.messages import (
    Hyperparameters,
    RefusedError,
    snap,
    to_broadcast,
)
from recast_core.start import Start
from server.aggregation import Contribution, average
from server.checks import check_evaluation, check_update
from server.heads import Heads, Learned
from server.ledger import Ledger
from server.observer import Observer
from server.registry import Registry
from server.roster import Roster, Share
from server.tables import Refusal
from server.traffic import Topic, Traffic

# A node that answers so has lost what it was told; greet it again.
_FORGETFUL = {"bank-missing", "bank-mismatch", "unknown-task"}


@dataclass
class TaskState:
    """A task on the server: its number, its name and its coefficients ``[D]``."""

    number: int
    name: str
    vector: Vector
    round: int = 0


class FedRecast(Strategy):
    """Federated averaging of coefficients, per task.

    The inherited ``start`` runs ``len(tasks) * rounds`` rounds. Each round trains the tasks that
    ``active`` names, on every node that has data for one; a task is evaluated after its last
    round. Arrays stay on the server: what travels are the messages of ``protos/``.
    """

    def __init__(
        self,
        bank: Start,
        tasks: Sequence[pb.Task],
        rounds: int,
        hyper: Hyperparameters,
        registry: Registry,
        run: int,
        observer: Observer,
        timeout: float = 3600.0,
        heads: Heads | None = None,
    ) -> None:
        """Prepare to learn ``tasks`` in their order, ``rounds`` rounds each."""
        self.heads = heads or Heads()
        self.bank = bank
        self.rounds = rounds
        self.hyper = hyper
        self.states = {
            task.id: TaskState(task.id, task.name, bank.initial_vector.numpy().copy())
            for task in tasks
        }
        self._registry = registry
        self._run = run
        self._observer = observer
        self._ledger = Ledger(registry)
        self._traffic = Traffic(self._ledger, observer)
        self._timeout = timeout
        self._roster = Roster(bank, tasks, self._traffic, observer, timeout)
        self._asked: dict[tuple[int, int], int] = {}
        # Who has just answered a task's round in vain, by node and task.
        self._lost: set[tuple[int, int]] = set()
        self._began = 0.0
        self._registered = False

    def active(self, server_round: int) -> list[TaskState]:
        """The tasks of a round (from 1): here one at a time."""
        return [self.states[(server_round - 1) // self.rounds + 1]]

    def initial_arrays(self) -> ArrayRecord:
        """Every task's coefficients by name, for ``start``."""
        return ArrayRecord({state.name: Array(state.vector) for state in self.states.values()})

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """A broadcast to every node for each active task that it can train.

        Raises:
            RecastError: no node is there, or none has data for a task.
        """
        self._began = time.monotonic()
        self._roster.refresh(grid)
        if not self._roster.nodes:
            raise RecastError(
                "no client is ready: start clients, and look for refusals in the log above"
            )
        self._asked = {}
        self._register_tasks()
        messages = []
        for state in self.active(server_round):
            # A method that learns a head alone has nothing to train.
            trains = self.bank.sent > 0
            nodes = [node for node, share in self._shares(state) if trains and share.can_train]
            state.round += 1
            body = self._broadcast(state, train=True)
            self._observer.round_started(state.name, state.round, self.rounds, len(nodes))
            for node in nodes:
                self._asked[node, state.number] = state.round
                topic = Topic(state.name, state.round)
                body.train.lost = (node, state.number) in self._lost
                messages.append(self._traffic.send(node, body, topic))
        return messages

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord, MetricRecord]:
        """Average each task's offsets, and record the round before anything else happens."""
        states = self.active(server_round)
        topic = Topic(states[0].name if len(states) == 1 else None, states[0].round)
        contributions: dict[int, dict[int, Contribution]] = {state.number: {} for state in states}
        longest = encoded_length(self.bank.sent, self.hyper.bits) + 64
        for node, message in self._traffic.receive(replies, topic, "update", longest):
            try:
                update, number = message.update, message.update.task
                asked = self._asked.get((node, number))
                share = self._roster.nodes.get(node, {}).get(number)
                contribution = check_update(self.bank, update, asked, share, self.hyper.bits)
                if node in contributions[number]:
                    raise RefusedError("replayed", "a second update of one task")
            except RefusedError as refused:
                self._traffic.refuse(node, topic, refused.reason, str(refused))
            else:
                contributions[number][node] = contribution
        counted = {(node, number) for number, by in contributions.items() for node in by}
        self._lost = set(self._asked) - counted if self.hyper.error_feedback else set()
        examples = 0
        for state in states:
            examples += self._finish_round(state, list(contributions[state.number].values()))
        return self.initial_arrays(), MetricRecord({"examples": examples})

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """An evaluation of each active task that has just had its last round."""
        finished = [state for state in self.active(server_round) if state.round == self.rounds]
        learned = [Learned(s.number, s.name, s.round, s.vector) for s in finished]
        self.heads.gather(grid, self.bank, learned, self._roster.nodes, self._traffic)
        return [message for state in finished for message in self._evaluations(state)]

    def aggregate_evaluate(
        self, server_round: int, replies: Iterable[Message]
    ) -> MetricRecord | None:
        """The accuracy over all test images of the clients, and that of the head alone."""
        finished = [state for state in self.active(server_round) if state.round == self.rounds]
        if not finished:
            return None
        accuracies = self._record_evaluations(finished, replies)
        return MetricRecord({"accuracy": fmean(accuracies)}) if accuracies else None

    def evaluate_again(self, grid: Grid) -> None:
        """Evaluate every task but the last once more: what learning the later ones changed."""
        *earlier, last = self.states.values()
        for state in earlier:
            replies = grid.send_and_receive(self._evaluations(state), timeout=self._timeout)
            self._record_evaluations([state], replies, after=last)

    def record_rest(self) -> None:
        """Record bytes and refusals that no round or evaluation has taken, as of an early end."""
        self._registry.record_traffic(self._run, self._ledger.drain(), self._drain_refusals())

    def summary(self) -> None:
        """Say nothing: the registry speaks."""

    def _shares(self, state: TaskState) -> list[tuple[int, Share]]:
        return [
            (node, shares[state.number])
            for node, shares in sorted(self._roster.nodes.items())
            if state.number in shares
        ]

    def _drain_refusals(self) -> list[Refusal]:
        refusals = self._ledger.drain_refusals()
        for refusal in refusals:
            if refusal.reason in _FORGETFUL:
                self._roster.forget(int(refusal.client))
        return refusals

    def _register_tasks(self) -> None:
        """Enter every task in the registry, before the first round spends anyone's time.

        Raises:
            RecastError: a task that no client can learn.
        """
        if self._registered:
            return
        for state in self.states.values():
            shares = [share for _, share in self._shares(state)]
            if not any(share.can_train for share in shares):
                raise RecastError(
                    f"no client has two classes of training images for task {state.name!r}: use "
                    "fewer clients, a less skewed partition, or data folders that hold the task"
                )
            self._registry.add_task(
                self._run,
                state.name,
                classes=max(share.classes for share in shares),
                examples=sum(share.train_examples for share in shares),
                clients=len(shares),
            )
        self._registered = True

    def _broadcast(self, state: TaskState, *, train: bool) -> pb.ToClient:
        hyper = self.hyper if train else None
        bits = self.heads.bits
        message = to_broadcast(self.bank, state.number, state.round, state.vector, hyper, bits)
        if train:
            return pb.ToClient(train=message)
        return pb.ToClient(evaluate=self.heads.complete(message))

    def _finish_round(self, state: TaskState, contributions: Sequence[Contribution]) -> int:
        try:
            state.vector = snap(self.bank, average(state.vector, contributions), self.heads.bits)
        except RefusedError as refused:
            raise RecastError(f"{refused}; lower the learning rate") from refused
        examples = sum(contribution.examples for contribution in contributions)
        seconds = time.monotonic() - self._began
        refusals = self._drain_refusals()
        self._registry.record_round(
            self._run,
            state.number,
            state.round,
            state.vector,
            examples=examples,
            clients=len(contributions),
            seconds=seconds,
            accuracy=None,
            ledger_rows=self._ledger.drain(),
            refusals=refusals,
        )
        if refusals and not contributions:
            # Silence may pass; a round in which every answer was refused will not mend itself.
            raise RecastError(
                f"no update was accepted in round {state.round} of task {state.name!r} "
                f"({refusals[-1].reason}: {refusals[-1].detail})"
            )
        self._observer.round_finished(state.name, state.round, len(contributions), seconds)
        return examples

    def _evaluations(self, state: TaskState) -> list[Message]:
        body = self._broadcast(state, train=False)
        return [
            self._traffic.send(node, body, Topic(state.name, state.round))
            for node, share in self._shares(state)
            if self.heads.can_evaluate(state.number, share)
        ]

    def _record_evaluations(
        self,
        states: Sequence[TaskState],
        replies: Iterable[Message],
        after: TaskState | None = None,
    ) -> list[float]:
        """Record each task's accuracy, as of learning ``after`` (itself where ``None``)."""
        topic = Topic(states[0].name if len(states) == 1 else None, states[0].round)
        rounds = {state.number: state.round for state in states}
        answers: dict[int, list[pb.Evaluation]] = {number: [] for number in rounds}
        for node, message in self._traffic.receive(replies, topic, "evaluation"):
            try:
                found = message.evaluation
                share = self._roster.nodes.get(node, {}).get(found.task)
                check_evaluation(self.bank, found, rounds.get(found.task), share)
            except RefusedError as refused:
                self._traffic.refuse(node, topic, refused.reason, str(refused))
            else:
                answers[found.task].append(found)
        accuracies = []
        for state in states:
            told = answers[state.number]
            examples = sum(answer.examples for answer in told)
            if not examples:
                continue
            accuracy = sum(answer.correct for answer in told) / examples
            head_only = None
            if self.heads.measures_baseline(self._broadcast(state, train=False).evaluate):
                head_only = sum(answer.head_only_correct for answer in told) / examples
            self._registry.record_accuracy(
                self._run,
                state.number,
                state.round,
                accuracy,
                head_only,
                examples=examples,
                clients=len(told),
                after_task=(after or state).number,
                ledger_rows=self._ledger.drain(),
                refusals=self._drain_refusals(),
            )
            accuracies.append(accuracy)
            if after is None:
                self._observer.evaluated(state.name, accuracy, head_only, len(told))
        self.record_rest()
        return accuracies
