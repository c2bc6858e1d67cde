"""What a message outside Flower's own launchers needs of Flower's internals, in one place."""

from __future__ import annotations

from typing import Any

from flwr.app import Message
from flwr.supercore.task_identity import TaskIdentity

# Of every run that Flower's launchers did not start.
RUN_ID = 1
Identity = tuple[Any, Any, Any]


def take_identity() -> Identity:
    """Let this process make and read messages of the run ``RUN_ID``; what it was before.

    From flwr 1.38 a message takes its run and sender from a process-wide identity that only
    Flower's own launchers set.
    """
    before = (TaskIdentity._run_id, TaskIdentity._node_id, TaskIdentity._task_id)
    TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = RUN_ID, 0, 0
    return before


def restore_identity(before: Identity) -> None:
    """Be again what ``take_identity`` had found."""
    TaskIdentity._run_id, TaskIdentity._node_id, TaskIdentity._task_id = before


def give_id(message: Message, name: str) -> None:
    """Give ``message`` an id, as a SuperLink would."""
    message.metadata.__dict__["_message_id"] = name
