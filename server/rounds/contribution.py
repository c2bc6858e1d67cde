"""What a round's clients add to a task, and what makes the next vector of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from recast_core.wire.codec import Vector


@dataclass(frozen=True, eq=False, slots=True)
class Contribution:
    """What one client adds to a round of one task.

    Attributes:
        offsets: from the broadcast, float32 ``[D]``.
        examples: the weight, at least 1.
        mix: its packed label mix, where that was asked for; see ``recast_core.label_mix``.
        loss: of its training, where it is known.
        doubted: of a client that was left out in many of the rounds before.
    """

    offsets: Vector
    examples: int
    mix: bytes = b""
    loss: float | None = None
    doubted: bool = False


# From the vector that was broadcast and what came back to the next one, both float32 ``[D]``.
# Whatever the order of arrival, the same contributions must give the same bits.
Aggregate = Callable[[Vector, Sequence[Contribution]], Vector]
# How much of each contribution a rule lets count, in the order given: 1 for all of it, 0 for none.
Shares = Callable[[Sequence[Contribution]], Sequence[float]]
