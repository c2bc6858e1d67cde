"""The few internals of Flower that a client outside its launchers must touch, in one place."""

from __future__ import annotations

from flwr.app import Message
from flwr.supercore.task_identity import TaskIdentity

from protos.content import to_content

RUN_ID = 1


def incoming(number: int, type_: str, body: bytes) -> Message:
    """The message that the server's grid sent, as Flower would hand it to a ClientApp.

    From flwr 1.38 a message takes its run and sender from a process-wide identity that only
    Flower's own launchers set.
    """
    TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = RUN_ID, 0, 0
    message = Message(to_content(body), 0, type_)
    message.metadata.__dict__["_message_id"] = f"m{number}"
    return message
