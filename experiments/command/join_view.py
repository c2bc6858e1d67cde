"""What a client says of its own work: what it does, how far it is, and how long it will take."""

from __future__ import annotations

import logging
import threading
import time

from experiments.command.working import Work, clock
from recast_core.pulse import Taught

QUIET_SECONDS = 10.0
# What the link hears, where its own word for it says nothing to a person.
_WORDS = {
    "query.hello": "greeted by the server",
    "query.bank": "the template bank has come",
    "query.head": "asked for, or sent, a head",
    "query.keys": "keys to hide updates",
    "query.open": "asked what opens the sum",
    "fetching": "fetching what is large: the template bank, once",
    "away": "the connection has ended",
}
logger = logging.getLogger("recast.link")


class JoinView:
    """Logs each piece of work once, and how far it is where it takes long.

    It listens to ``recast_core.pulse``, and hears what the link does.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._work = Work()
        self._what = ""
        self._named: set[str] = set()
        self._asked = self._said = time.monotonic()

    def heard(self, event: str) -> None:
        """What the link does, in a word or two."""
        if event == "answered":
            spent = time.monotonic() - self._asked
            event += f" after {clock(spent)}" if spent >= 1 else ""
        else:
            self._asked = time.monotonic()
            self._named.clear()
            event = _WORDS.get(event, event)
        logger.info("%s", event)

    def about(self, task: str, round_: int) -> None:
        """What follows is of this task and round."""
        self._what = f"{task}, round {round_}" if round_ else task

    def learned(self, taught: Taught) -> None:
        """Say what a training came to."""
        logger.info("%s, round %d: training loss %.3f", taught.name, taught.round, taught.loss)

    def began(self, what: str, images: int) -> None:
        """Say what begins, unless the same was said of this message."""
        with self._lock:
            self._work.begin(what, images)
            self._said = time.monotonic()
            if not self._what or not images or what in self._named:
                return
            self._named.add(what)
        logger.info("%s: %s, %s images", self._what, what, f"{images:,}")

    def advanced(self, images: int) -> None:
        """Say how far it is, now and then."""
        with self._lock:
            self._work.advance(images)
            now = time.monotonic()
            if now - self._said < QUIET_SECONDS:
                return
            self._said = now
            line = self._work.line()
        logger.info("%s: %s", self._what, line)
