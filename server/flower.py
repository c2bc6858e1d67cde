"""The few internals of Flower that a grid of our own must touch, in one place."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager

from flwr.app import Message, RecordDict
from flwr.serverapp import Grid
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity

_numbers = itertools.count(1)


def empty_run(run_id: int) -> Run:
    """A ``Run`` with nothing in it but its id."""
    return Run.create_empty(run_id)


@contextmanager
def server_identity(run_id: int) -> Iterator[None]:
    """Let this process make messages as the server of ``run_id``.

    From flwr 1.38 a message takes its run and sender from a process-wide identity that only
    Flower's own launchers set.
    """
    before = (TaskIdentity._run_id, TaskIdentity._node_id, TaskIdentity._task_id)
    TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = run_id, 0, 0
    try:
        yield
    finally:
        TaskIdentity._run_id, TaskIdentity._node_id, TaskIdentity._task_id = before


def number(message: Message) -> str:
    """Give ``message`` an id of its own, as a SuperLink would, and return it."""
    name = f"m{next(_numbers)}"
    message.metadata.__dict__["_message_id"] = name
    return name


class OwnGrid(Grid):
    """What grids of our own have in common: a run that they only name, and plain messages."""

    def __init__(self, run_id: int) -> None:
        """Be the grid of the run ``run_id``."""
        self._run = empty_run(run_id)

    def set_run(self, run: Run) -> None:
        """Replace the run's description."""
        self._run = run

    @property
    def run(self) -> Run:
        """The run's description."""
        return self._run

    def create_message(
        self,
        content: RecordDict,
        message_type: str,
        dst_node_id: int,
        group_id: str,
        ttl: float | None = None,
    ) -> Message:
        """A message to a node."""
        return Message(content, dst_node_id, message_type, ttl=ttl, group_id=group_id)
