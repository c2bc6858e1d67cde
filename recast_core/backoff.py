"""How long to wait before the next attempt to connect."""

from __future__ import annotations

import random


class Backoff:
    """Doubling waits with full jitter, so that clients cut off together do not return together."""

    def __init__(self, first: float = 1.0, longest: float = 120.0) -> None:
        self._first, self._longest = first, longest
        self._failures = 0

    def another(self) -> Backoff:
        """One of the same waits, which counts failures of something else."""
        return Backoff(self._first, self._longest)

    def reset(self) -> None:
        """A connection has worked."""
        self._failures = 0

    def next(self) -> float:
        """Seconds to wait: half to all of a span that doubles with each failure."""
        span = min(self._longest, self._first * 2.0 ** min(self._failures, 30))
        self._failures += 1
        return span * random.uniform(0.5, 1.0)
