"""Where a task stands."""

from __future__ import annotations

from dataclasses import dataclass

from recast_core.wire.codec import Vector


@dataclass
class TaskState:
    """A task on the server.

    Attributes:
        number: from 1, as in the registry.
        name: unique in the run.
        vector: coefficients ``[D]`` after round ``round``.
        round: the last finished one, 0 before the first.
        attempts: at the next round, that brought no update.
        evaluated: with the coefficients of its last round.
        looked: the round before its last that was evaluated last, 0 for none.
        given_up: it is not tried again in this process.
        mix: the fleet's packed label mix, where clients have no labels; empty until it is known.
        source: its DATA specification.
        classes: the names that class ids count in; none where they are not agreed yet, or where
            no client has names.
    """

    number: int
    name: str
    vector: Vector
    round: int = 0
    attempts: int = 0
    evaluated: bool = False
    looked: int = 0
    given_up: bool = False
    mix: bytes = b""
    source: str = ""
    classes: tuple[str, ...] = ()
