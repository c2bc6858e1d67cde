"""What the server can tell of coefficients by itself: images of a task that it holds."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from recast_core.wire.codec import Vector
from server.rounds.state import TaskState

# The fraction of a probe's images that coefficients ``[D]`` get right.
Score = Callable[[Vector], float]


class Probe(Protocol):
    """Held-out images of tasks."""

    @property
    def each(self) -> bool:
        """Whether every update is judged by itself, rather than the round's result alone."""

    def of(self, state: TaskState) -> Score | None:
        """How to score coefficients of a task; ``None`` where there are no images of it."""
