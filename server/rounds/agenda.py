"""What a run has to learn: its tasks, where each stands, and what is known of their data."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from flwr.serverapp import Grid

from protos import recast_v1_pb2 as pb
from recast_core.classes import Names, alike
from server.exchange.share import agreed_classes
from server.record.resume import changed_shares
from server.record.rewinding import rewind_asked
from server.rounds.federation import Federation
from server.rounds.keeping import Keeping
from server.rounds.state import TaskState

logger = logging.getLogger("recast.server")


class Agenda:
    """The tasks of a run, by number, as the registry and the clients tell of them.

    Attributes:
        states: of the tasks.
        keeping: of those that keep an earlier one's head.
    """

    def __init__(self, federation: Federation, required: int) -> None:
        """Take up the tasks that the registry has.

        Args:
            federation: the run.
            required: so many of the first tasks must be learnable before the first round.
        """
        self.states: dict[int, TaskState] = {}
        self._federation = federation
        self._required = required
        self._described: dict[int, dict[str, tuple[int, int]]] = {}
        self.keeping = Keeping(federation, self.states)
        self.read()

    def read(self) -> None:
        """Take up tasks that are new in the registry; every node is greeted with the whole list."""
        federation = self._federation
        registry, run = federation.registry, federation.run
        for number in rewind_asked(registry, run):
            self._go_back(number)
        tasks = registry.tasks(run)
        if len(tasks) == len(self.states):
            return
        evaluated = {
            entry.task
            for entry in registry.accuracies(run)
            if entry.task == entry.after_task and entry.round >= federation.plan.rounds
        }
        finished, classes = registry.last_rounds(run), registry.class_lists(run)
        mixes = registry.label_mixes(run)
        for task in tasks:
            if task.number in self.states:
                continue
            round_ = finished.get(task.number, 0)
            if round_:
                vector = registry.coefficients(run, task.number, round_)
            else:
                vector = federation.start.initial_vector.numpy().copy()
            state = TaskState(
                task.number, task.name, vector, round_, evaluated=task.number in evaluated
            )
            state.mix = mixes.get(task.number, b"")
            self.states[task.number] = state
            state.source, state.classes = task.source, classes.get(task.number, ())
            if not state.classes and (names := self.keeping.names(state, task.source)):
                self._name(state, names)
        federation.roster.announce(
            [
                pb.Task(
                    id=task.number,
                    name=task.name,
                    source=task.source,
                    keeps_head=federation.heads.keeps(task.number),
                )
                for task in tasks
            ],
            {state.number: state.classes for state in self.states.values() if state.classes},
        )

    def _go_back(self, number: int) -> None:
        """Take a task's state from the registry again, where it went back to an earlier round."""
        federation, state = self._federation, self.states.get(number)
        federation.heads.forget(number)
        if state is None:
            return
        round_ = federation.registry.last_rounds(federation.run).get(number, 0)
        state.vector = (
            federation.registry.coefficients(federation.run, number, round_)
            if round_
            else federation.start.initial_vector.numpy().copy()
        )
        state.round, state.attempts = round_, 0
        state.evaluated = state.given_up = False
        logger.warning("task %s goes back to round %d", state.name, round_)

    @property
    def began(self) -> bool:
        """Whether clients have told of their data of a task that this process learns."""
        return bool(self._described)

    def unfinished(self) -> list[TaskState]:
        """The tasks that have rounds left."""
        rounds = self._federation.plan.rounds
        return [s for s in self.states.values() if s.round < rounds and not s.given_up]

    def unevaluated(self) -> list[TaskState]:
        """The tasks that have had their last round and no evaluation."""
        rounds = self._federation.plan.rounds
        return [s for s in self.states.values() if s.round >= rounds and not s.evaluated]

    def halfway(self) -> list[TaskState]:
        """The tasks that have just had a round after which they are evaluated on the way."""
        plan = self._federation.plan
        return [
            s
            for s in self.states.values()
            if plan.evaluate_every
            and s.looked < s.round < plan.rounds
            and s.round % plan.evaluate_every == 0
        ]

    def active(self) -> list[TaskState]:
        """The tasks of the next round: the first that have rounds left and a client."""
        able = [
            state
            for state in self.unfinished()
            if self._federation.is_learnable(state.number) and self.keeping.ready(state)
        ]
        return able[: self._federation.plan.parallel]

    def unlearnable(self) -> list[TaskState]:
        """The tasks that must be learned, and that no client who is there can."""
        return [
            state
            for state in self.unfinished()
            if state.number <= self._required and not self._federation.is_learnable(state.number)
        ]

    def agree(self, grid: Grid, states: Sequence[TaskState]) -> None:
        """Have the clients agree on what class ids mean, where that is not known by now."""
        outputs, roster = self._federation.heads.outputs, self._federation.roster
        for state in states:
            if not state.classes and (known := self.keeping.names(state)):
                roster.settle(grid, state.number, known)
                self._name(state, known)
            names = state.classes or roster.agree(grid, state.number, outputs)
            if names and not state.classes:
                self._name(state, names)

    def describe(self) -> None:
        """Enter what clients have of each unfinished task in the registry."""
        federation = self._federation
        for state in self.unfinished():
            shares = {str(node): share for node, share in federation.shares(state.number)}
            found = {
                node: (share.train_examples, share.test_examples) for node, share in shares.items()
            }
            if found and self._described.get(state.number) != found:
                before = federation.registry.shares(federation.run)
                for line in changed_shares(before, state.number, found):
                    logger.warning("the data of task %s have changed: %s", state.name, line)
                classes = len(state.classes) or agreed_classes(shares.values())
                federation.registry.describe_task(federation.run, state.number, classes, found)
                self._described[state.number] = found

    def _name(self, state: TaskState, names: Names) -> None:
        if twice := alike(names):
            logger.warning("task %s: classes %s", state.name, twice)
        state.classes = names
        self._federation.registry.name_classes(self._federation.run, state.number, names)
