"""The few internals of Flower that a grid of our own must touch, in one place."""

from __future__ import annotations

import itertools
from abc import abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Self

from flwr.app import Message, RecordDict
from flwr.serverapp import Grid
from flwr.supercore.run import Run

from protos.flower import RUN_ID, give_id, restore_identity, take_identity

_numbers = itertools.count(1)


def empty_run() -> Run:
    """A ``Run`` with nothing in it but its id, ``RUN_ID``."""
    return Run.create_empty(RUN_ID)


@contextmanager
def server_identity() -> Iterator[None]:
    """Let this process make messages as the server of the run ``RUN_ID``."""
    before = take_identity()
    try:
        yield
    finally:
        restore_identity(before)


def number(message: Message) -> str:
    """Give ``message`` an id of its own, as a SuperLink would, and return it."""
    name = f"m{next(_numbers)}"
    give_id(message, name)
    return name


class OwnGrid(Grid):
    """What grids of our own have in common: a run that they only name, and plain messages."""

    def __init__(self) -> None:
        self._run = empty_run()

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


class ServedGrid(OwnGrid):
    """A grid of our own whose nodes are elsewhere, for as long as a ``with`` block lasts."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.end(finished=error is None)

    @abstractmethod
    def end(self, *, finished: bool) -> None:
        """Stop serving; clients of a finished run are told so where the grid can."""
