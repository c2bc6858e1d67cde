"""How much one client may ask of the server before it is put off."""

from __future__ import annotations

import time
from collections.abc import Callable

MAX_CLIENTS = 10_000
FETCHES_AT_ONCE = 2
SECONDS_TO_JOIN = 20.0
# How often the list of revoked certificates is looked at where nobody speaks, and how long whoever
# is on it has for leaving by itself.
SECONDS_TO_LOOK = 0.25
SECONDS_TO_LEAVE = 0.4


class Bucket:
    """A token bucket: ``burst`` at once, ``rate`` per second in the long run."""

    def __init__(
        self, rate: float, burst: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._rate, self._burst, self._clock = rate, burst, clock
        self._left, self._at = burst, clock()

    def take(self) -> bool:
        """Take one token if there is one."""
        now = self._clock()
        self._left = min(self._burst, self._left + self._rate * (now - self._at))
        self._at = now
        if self._left < 1:
            return False
        self._left -= 1
        return True


def joins() -> Bucket:
    """A link that flaps joins every few seconds for a while; nothing useful joins faster."""
    return Bucket(rate=0.5, burst=20)


def strays() -> Bucket:
    """Frames that answer no open message: late answers are rare, anything more is noise."""
    return Bucket(rate=0.1, burst=16)
