"""What a federation tells whoever watches it."""

from __future__ import annotations

import logging
from collections.abc import Collection
from functools import cached_property
from typing import Protocol

from recast_core.start import Start
from recast_core.text import how_many
from server.exchange.hush import Hush

logger = logging.getLogger("recast.server")

# Codes, far from Flower's, with which a grid of ours says how it lost an answer.
LOST = {1001: "away", 1002: "dropped", 1003: "straggler", 1004: "revoked"}


class Observer(Protocol):
    """Called from the server's thread, in order."""

    def run_started(self, start: Start) -> None:
        """A run begins, or goes on, from ``start``; nobody has been greeted."""

    def joined(self, clients: int, delivered: int) -> None:
        """``clients`` answered the greeting, of which ``delivered`` were sent the bank."""

    def round_started(self, task: str, round_: int, rounds: int, clients: int) -> None:
        """A round's messages are about to leave."""

    def learned(self, task: str, round_: int, loss: float, clients: int) -> None:
        """The round that is about to finish had this mean training loss, over so many clients.

        Told only where losses are known.
        """

    def round_finished(self, task: str, round_: int, updates: int, seconds: float) -> None:
        """A round is aggregated and in the registry."""

    def evaluated(self, task: str, accuracy: float, without: float | None, clients: int) -> None:
        """A task was evaluated; accuracies are fractions.

        ``without`` is the best that was measured without an update, ``None`` where nothing was.
        """

    def refused(self, client: str, reason: str, detail: str) -> None:
        """A client, or its answer, is left out."""

    def overdue(self, clients: Collection[str]) -> None:
        """These, and no others, are asked but not waited for: they did not answer in time."""


class LogObserver:
    """An observer that logs one line for each event."""

    _overdue: frozenset[str] = frozenset()
    _loss: float | None = None

    @cached_property
    def _hush(self) -> Hush:
        return Hush(logger)

    def run_started(self, start: Start) -> None:
        """Say nothing: nothing has happened."""

    def joined(self, clients: int, delivered: int) -> None:
        """Log who is there."""
        logger.info("%s, bank sent to %d", how_many(clients, "client"), delivered)

    def round_started(self, task: str, round_: int, rounds: int, clients: int) -> None:
        """Say nothing: the line that matters comes when the round is over."""

    def learned(self, task: str, round_: int, loss: float, clients: int) -> None:
        """Remember it for the round's line."""
        self._loss = loss

    def round_finished(self, task: str, round_: int, updates: int, seconds: float) -> None:
        """Log a finished round."""
        loss = "" if self._loss is None else f", loss {self._loss:.3f}"
        self._loss = None
        told = how_many(updates, "update")
        logger.info("task %s round %d: %s, %.1f s%s", task, round_, told, seconds, loss)

    def evaluated(self, task: str, accuracy: float, without: float | None, clients: int) -> None:
        """Log accuracies in percent."""
        logger.info(
            "task %s: accuracy %.2f %%, without updates %s (%s)",
            task,
            100 * accuracy,
            "not measured" if without is None else f"{100 * without:.2f} %",
            how_many(clients, "client"),
        )

    def refused(self, client: str, reason: str, detail: str) -> None:
        """Warn of what was left out."""
        text = "client %s refused (%s): %s"
        self._hush.log(logging.WARNING, client, text, self.name_of(client), reason, detail)

    def overdue(self, clients: Collection[str]) -> None:
        """Log who is new among them."""
        if new := sorted(set(clients) - self._overdue):
            names = ", ".join(self.name_of(client) for client in new)
            logger.warning("no answer in time from %s: asked again, but not waited for", names)
        self._overdue = frozenset(clients)

    def name_of(self, client: str) -> str:
        """What to call a client in a log line."""
        return client
