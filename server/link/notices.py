"""What the link has to tell whoever asks: what it refused, and what it handed over."""

from __future__ import annotations

import logging
import threading
from collections import Counter, deque

from server.exchange.carried import Carried
from server.exchange.hush import Hush
from server.link.session import Refused

logger = logging.getLogger("recast.link")
# Between two rounds of the server, however busy somebody makes it.
KEPT_REFUSALS = 256


class Notices:
    """Refusals and deliveries since they were last asked for. Every method is thread-safe."""

    def __init__(self) -> None:
        self.hush = Hush(logger)
        self.refused: Counter[str] = Counter()
        self._lock = threading.Lock()
        self._refusals: deque[Refused] = deque(maxlen=KEPT_REFUSALS)
        self._carried: list[Carried] = []

    def refuse(self, client: str | None, reason: str, detail: str) -> None:
        """Count, log and remember something that the link refused."""
        text = "client %s refused (%s): %s"
        self.hush.log(logging.WARNING, client or "?", text, client or "?", reason, detail)
        with self._lock:
            self.refused[reason] += 1
            self._refusals.append(Refused(client, reason, detail))

    def take_refusals(self) -> list[Refused]:
        """What was refused since this was last called; the latest, where there is too much."""
        with self._lock:
            refusals = list(self._refusals)
            self._refusals.clear()
            return refusals

    def carry(self, part: Carried) -> None:
        """Remember a part of a body that has been handed over."""
        with self._lock:
            self._carried.append(part)

    def take_carried(self) -> list[Carried]:
        """The parts that were handed over since this was last called."""
        with self._lock:
            carried, self._carried = self._carried, []
            return carried
