"""Which updates point where most of the others do: a vote of directions, one for each client."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from server.rounds.rules.stacked import Numbers, lengths

# An update is against the others where its cosine with the sum of theirs is below minus this: near
# the end of learning honest updates have no direction in common, and then none is left out.
AGAINST = 0.05
# What was left out in earlier rounds has to point with the others, by this much.
WITH = 0.2
# Updates that each one is compared with at first, and how many at once: many clients cost time in
# proportion to their number, and no square of it in memory.
VOTERS = 1024
_AT_ONCE = 256


def agreeing(rows: Numbers, doubted: NDArray[np.bool_] | None = None) -> NDArray[np.bool_]:
    """Which of the rows ``[N, D]``, none of length 0, are not against the others.

    Of an update only its direction counts, and neither its length nor its examples. Those whose
    median cosine with the others is not negative say which way the round goes; left out is what
    points away from the sum of their directions, its own not counted, and fewer than half of all.
    Where clients differ much the coordinates' median follows a minority that agrees: in each place
    a third of the clients takes it from the middle. Their directions as a whole are far less mixed.
    """
    if len(rows) < 3:
        return np.ones(len(rows), bool)
    units = rows / lengths(rows)[:, None]
    voting = _median_cosines(units) >= 0
    others = units[voting].sum(0) - voting[:, None] * units
    size = lengths(others)
    along = (units * others).sum(1) / np.where(size > 0, size, 1.0)
    lowest = np.argsort(along, kind="stable")[: (len(rows) - 1) // 2]
    found = np.ones(len(rows), bool)
    least = np.full(len(rows), -AGAINST)
    if doubted is not None:
        least[doubted] = WITH
    found[lowest] = along[lowest] >= least[lowest]
    return found


def _median_cosines(units: Numbers) -> Numbers:
    """Of each of the unit rows ``[N, D]``, the median cosine with the others: float64 ``[N]``."""
    voters = np.unique(np.linspace(0, len(units) - 1, min(len(units), VOTERS)).astype(np.int64))
    found = np.empty(len(units))
    for first in range(0, len(units), _AT_ONCE):
        some = np.arange(first, min(first + _AT_ONCE, len(units)))
        # No matrix product of a library, whose last bits depend on its threads.
        cosines = np.einsum("id,jd->ij", units[some], units[voters])
        own = some[:, None] == voters
        cosines[own] = np.inf  # beyond all others: out of the middle
        found[some] = _medians(cosines, len(voters) - own.sum(1))
    return found


def _medians(rows: Numbers, counts: NDArray[np.int64]) -> Numbers:
    """Of the ``counts`` smallest of each row ``[M, N]``, all of them or all but one: ``[M]``."""
    middle = (rows.shape[1] - 1) // 2
    ordered = np.partition(rows, [max(middle - 1, 0), middle, rows.shape[1] // 2], axis=1)
    low, high = (
        np.take_along_axis(ordered, place[:, None], 1)[:, 0]
        for place in ((counts - 1) // 2, counts // 2)
    )
    return np.asarray((low + high) / 2)
