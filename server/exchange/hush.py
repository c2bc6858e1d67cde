"""Log lines that a peer can cause, few enough that the log stays readable and the disk free."""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable

KNOWN = 1024


class Bucket:
    """A token bucket: ``burst`` at once, ``rate`` per second in the long run."""

    __slots__ = ("_at", "_burst", "_clock", "_left", "_rate")

    def __init__(
        self, rate: float, burst: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._rate, self._burst, self._clock = rate, burst, clock
        self._left, self._at = burst, clock()

    def take(self, count: float = 1) -> bool:
        """Take ``count`` tokens if there are as many."""
        now = self._clock()
        self._left = min(self._burst, self._left + self._rate * (now - self._at))
        self._at = now
        if self._left < count:
            return False
        self._left -= count
        return True


class Hush:
    """Writes a line unless its cause, or all causes together, have written many of late.

    What is left out is counted, and told with the next line of the same cause. Every method may be
    called from any thread.
    """

    def __init__(self, logger: logging.Logger, clock: Callable[[], float] = time.monotonic) -> None:
        """Write to ``logger``."""
        self._logger, self._clock = logger, clock
        self._lock = threading.Lock()
        self._all = Bucket(rate=5, burst=60, clock=clock)
        self._causes: OrderedDict[str, tuple[Bucket, int]] = OrderedDict()

    def log(self, level: int, cause: str, text: str, *values: object) -> None:
        """Write a line that ``cause``, a client or an address, has brought about."""
        with self._lock:
            bucket, silent = self._causes.pop(cause, (self._bucket(), 0))
            told = bucket.take() and self._all.take()
            self._causes[cause] = bucket, 0 if told else silent + 1
            while len(self._causes) > KNOWN:
                self._causes.popitem(last=False)
        if told and silent:
            text, values = text + " (and %d lines more before it)", (*values, silent)
        if told:
            self._logger.log(level, text, *values)

    def _bucket(self) -> Bucket:
        return Bucket(rate=0.2, burst=12, clock=self._clock)
