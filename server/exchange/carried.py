"""What a transport has really been given of bodies that are fetched in parts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from server.record.rows import Air


@dataclass(frozen=True)
class Carried:
    """A part of a message's body: to a node, from byte ``start`` up to ``end`` of ``size``.

    Attributes:
        node: Flower's node id.
        type: the message type.
        start: the first byte.
        end: the first byte that is no longer part of it.
        size: of the whole body.
    """

    node: int
    type: str
    start: int
    end: int
    size: int


@runtime_checkable
class Carrying(Protocol):
    """A grid that tells what it has handed over of large bodies, which may be less, or more."""

    def tells(self, type_: str, size: int) -> bool:
        """Whether it will tell of a body of this message type and size."""

    def take_carried(self) -> list[Carried]:
        """What it has handed over since this was last called."""


@runtime_checkable
class Airborne(Protocol):
    """A grid whose clients send frames, which others on the air have to wait for."""

    def take_air(self) -> list[Air]:
        """What has been on the air since this was last called."""


@runtime_checkable
class Ending(Protocol):
    """A grid that tells its clients when the run is over, and carries nothing after that."""

    def end(self, *, finished: bool) -> None:
        """Carry no more; clients of a finished run are told so."""
