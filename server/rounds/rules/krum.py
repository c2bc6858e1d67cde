"""Krum and multi-Krum (Blanchard et al., 2017): the updates that have the nearest neighbours."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from recast_core.wire.codec import Vector
from server.rounds.contribution import Contribution
from server.rounds.rules.stacked import Numbers, Stack, lengths, moved

# Of all clients, how many it is made for that lie.
LIARS = 0.3

# Of how many contributions how many are taken.
_Taken = Callable[[int], int]


def krum(start: Vector, contributions: Sequence[Contribution]) -> Vector:
    """``start`` moved by the one offset with the nearest neighbours: float32 ``[D]``."""
    return _mean_of(start, contributions, _one)


def multi_krum(start: Vector, contributions: Sequence[Contribution]) -> Vector:
    """``start`` moved by the mean of the offsets with the nearest neighbours, by examples."""
    return _mean_of(start, contributions, _several)


def krum_shares(contributions: Sequence[Contribution]) -> list[float]:
    """1 for the contribution that ``krum`` takes, 0 for others."""
    return _shares(contributions, _one)


def multi_krum_shares(contributions: Sequence[Contribution]) -> list[float]:
    """1 for each contribution that ``multi_krum`` takes, 0 for others."""
    return _shares(contributions, _several)


def _one(count: int) -> int:
    # Of two nothing tells which to trust.
    return 1 if count > 2 else count


def _several(count: int) -> int:
    return count - round(LIARS * count) if count > 2 else count


def _mean_of(start: Vector, contributions: Sequence[Contribution], taken: _Taken) -> Vector:
    if not contributions:
        return start.copy()
    stack = Stack.of(contributions)
    kept = _nearest(stack, taken(len(contributions)))
    weights = stack.weights[kept]
    return moved(start, (weights[:, None] * stack.offsets[kept]).sum(0) / weights.sum())


def _shares(contributions: Sequence[Contribution], taken: _Taken) -> list[float]:
    if not contributions:
        return []
    stack = Stack.of(contributions)
    chosen = np.zeros(len(contributions))
    chosen[_nearest(stack, taken(len(contributions)))] = 1.0
    return stack.as_given(chosen)


def _nearest(stack: Stack, count: int) -> list[int]:
    """The places of the ``count`` updates whose neighbours are nearest, ascending."""
    total = len(stack.weights)
    if count == total:
        return list(range(total))
    distances: Numbers = np.stack(
        [np.square(lengths(stack.offsets - row)) for row in stack.offsets]
    )
    neighbours = max(1, total - round(LIARS * total) - 2)
    # The first in a row is an update's distance from itself.
    scores = np.sort(distances, axis=1)[:, 1 : 1 + neighbours].sum(1)
    return sorted(np.argsort(scores, kind="stable")[:count].tolist())
