"""What a grid can tell the people at its clients, beside the messages that are answered."""

from __future__ import annotations

from typing import Protocol, runtime_checkable


@runtime_checkable
class Noticing(Protocol):
    """A grid that carries a line of text to a client's log. Flower's own grids cannot."""

    def notify(self, node: int, text: str) -> int:
        """Have ``text`` logged by the client; the bytes that this takes, 0 for an unknown node."""

    def notify_all(self, text: str, seconds: float) -> None:
        """Have ``text`` logged by every client; returns when it is sent, or after some seconds."""
