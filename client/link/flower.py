"""Messages for a ClientApp that Flower's launchers did not start."""

from __future__ import annotations

from flwr.app import Message

from protos.content import to_content
from protos.flower import give_id, take_identity


def incoming(number: int, type_: str, body: bytes) -> Message:
    """The message that the server's grid sent, as Flower would hand it to a ClientApp."""
    take_identity()
    message = Message(to_content(body), 0, type_)
    give_id(message, f"m{number}")
    return message
