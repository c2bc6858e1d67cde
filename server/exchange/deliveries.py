"""How often a node may say that it has lost the bank."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable

# A disk may be lost once without anybody waiting; then a loss costs this, and each further one four
# times as long. A server that is started again has forgotten.
FIRST_PAUSE = 600.0


class Deliveries:
    """Counts the receipts of each node: a bank is worth thousands of rounds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """Nobody has been sent anything."""
        self._clock = clock
        self._stored: Counter[int] = Counter()
        self._barred: dict[int, float] = {}

    def stored(self, node: int) -> None:
        """A node has confirmed that it holds the bank."""
        self._stored[node] += 1

    def pause(self, node: int) -> float:
        """Seconds until a node that lacks the bank may be sent it; it is barred until then."""
        losses = self._stored[node]
        if losses < 2:
            return 0.0
        now = self._clock()
        if node not in self._barred:
            self._barred[node] = now + FIRST_PAUSE * 4.0 ** min(losses - 2, 8)
        left = self._barred[node] - now
        if left <= 0:
            del self._barred[node]
        return max(0.0, left)

    def barred(self, node: int) -> bool:
        """Whether a node is not even greeted."""
        return self._barred.get(node, 0.0) > self._clock()
