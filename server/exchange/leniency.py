"""How often a node may have the server send something again because it says that it lacks it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from server.exchange.hush import Bucket


@dataclass
class Leniency:
    """So many times at once, and once in so many seconds in the long run; for each node by itself.

    A server that is started again has forgotten.

    Attributes:
        times: at once.
        seconds: from then on, between one time and the next.
        clock: seconds, monotonic.
    """

    times: int
    seconds: float
    clock: Callable[[], float] = time.monotonic
    _buckets: dict[int, Bucket] = field(default_factory=dict)
    _barred: dict[int, float] = field(default_factory=dict)

    def grant(self, node: int) -> bool:
        """Whether a node may have it again; that counts, and one that may not is barred."""
        if self.barred(node):
            return False
        bucket = self._buckets.get(node)
        if bucket is None:
            bucket = self._buckets[node] = Bucket(1 / self.seconds, self.times, self.clock)
        if bucket.take():
            return True
        self._barred[node] = self.clock() + self.seconds
        return False

    def barred(self, node: int) -> bool:
        """Whether a node has had it too often of late."""
        return self._barred.get(node, 0.0) > self.clock()
