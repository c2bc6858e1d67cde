"""Tasks that keep an earlier task's head: from when they can be learned, and where they start."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from recast_core.classes import Names
from recast_core.errors import RecastError
from recast_core.wire.codec import Vector
from recast_core.wire.head_bytes import kind_of
from server.rounds.federation import Federation
from server.rounds.state import TaskState


class Keeping:
    """What becomes of a run's tasks because some of them keep an earlier one's head."""

    def __init__(self, federation: Federation, states: Mapping[int, TaskState]) -> None:
        """Look after ``states``, all tasks of the run by number, which others change."""
        self._federation, self._states = federation, states
        self._earlier = federation.heads.earlier

    def names(self, state: TaskState, source: str | None = None) -> Names:
        """What a task's class ids mean, as far as it is known without asking a client.

        Args:
            state: of the task.
            source: of its data; ``None`` where these are not to be asked.
        """
        if self._earlier is not None and self._federation.heads.keeps(state.number):
            if self._earlier.number:
                return self._states[self._earlier.number].classes
            return self._earlier.classes
        names_of = self._federation.heads.classes_of
        return (names_of(source) if names_of and source is not None else None) or ()

    def ready(self, state: TaskState) -> bool:
        """Whether the head is there that the task keeps, if it keeps one."""
        return not self._federation.heads.keeps(state.number) or self._learned()

    def check(self, unfinished: Sequence[TaskState]) -> None:
        """Refuse to go on where the earlier task is over and has no head.

        Raises:
            RecastError: so, and tasks are left that keep it.
        """
        earlier, heads = self._earlier, self._federation.heads
        waiting = [state.name for state in unfinished if heads.keeps(state.number)]
        if earlier is None or not earlier.number or not waiting or self._learned():
            return
        task = self._states[earlier.number]
        if task.given_up or task.round >= self._federation.plan.rounds:
            raise RecastError(
                f"task {waiting[0]!r} keeps the head of {earlier.name!r}, which has none: nobody "
                "told of its features, or that task was given up; look at the refusals, or use "
                "another head"
            )

    def prepare(self, states: Sequence[TaskState]) -> None:
        """Let tasks that begin start where the head was learned, and record what they keep.

        Raises:
            RecastError: a task began with another head, as where that of another run has changed.
        """
        federation = self._federation
        for state in states:
            if not federation.heads.keeps(state.number):
                continue
            assert self._earlier is not None
            assert self._earlier.head is not None
            told = self._earlier.head.head
            there = federation.registry.head(federation.run, state.number)
            if there is not None and there[1] != told and state.round:
                raise RecastError(
                    f"task {state.name!r} began with another head of {self._earlier.name!r}: "
                    "restore what that was, or start in another --run-dir"
                )
            if there is None or there[1] != told:
                kind = kind_of(self._earlier.head.head_kind)
                federation.registry.keep_head(federation.run, state.number, kind, told)
            if not state.round:
                state.vector = self._vector()

    def _vector(self) -> Vector:
        assert self._earlier is not None
        if self._earlier.vector is None:
            return self._states[self._earlier.number].vector.copy()
        return np.array(self._earlier.vector)

    def _learned(self) -> bool:
        """Whether there is a head; what a registry has of it is taken up."""
        federation, earlier = self._federation, self._earlier
        if earlier is None or earlier.head is not None:
            return earlier is not None
        task = self._states.get(earlier.number)
        if task is None or task.round < federation.plan.rounds:
            return False
        if not federation.heads.merged(task.number):
            found = federation.registry.head(federation.run, task.number)
            if found is None:
                return False
            federation.heads.restore(task.number, found[1])
        federation.broadcast(task, task.round, train=False)
        return earlier.head is not None
