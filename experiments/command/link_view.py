"""What a person sees of a server: a live table on a terminal, log lines elsewhere."""

from __future__ import annotations

import logging
from typing import Self

from rich.console import Console, Group
from rich.live import Live
from rich.logging import RichHandler
from rich.table import Table
from rich.text import Text

from experiments.command.caution import warn_of_many
from experiments.command.link_log import set_up
from recast_core.closing import Closing
from recast_core.start import Start
from server.exchange.observer import LogObserver
from server.link.session import Session
from server.link.sessions import Sessions

ROWS = 20
logger = logging.getLogger("recast.server")


class LinkView(LogObserver, Closing):
    """An observer that logs each event, and on a terminal shows who is connected meanwhile."""

    def __init__(self, sessions: Sessions, *, plain: bool) -> None:
        """Look at ``sessions``; ``plain`` keeps to log lines."""
        self._sessions = sessions
        self._now = "waiting for clients"
        self._last = ""
        console = Console(stderr=True)
        self._live: Live | None = None
        if console.is_terminal and not plain:
            set_up(as_json=False, handler=RichHandler(console=console, show_path=False))
            self._live = Live(console=console, get_renderable=self.render, refresh_per_second=2)

    def __enter__(self) -> Self:
        if self._live is not None:
            self._live.start()
        return self

    def close(self) -> None:
        """Leave the terminal as it was."""
        if self._live is not None:
            self._live.stop()

    def run_started(self, start: Start) -> None:
        """Warn of a configuration that trains many coefficients."""
        warn_of_many(start)

    def round_started(self, task: str, round_: int, rounds: int, clients: int) -> None:
        """Remember what is going on."""
        self._now = f"{task}: round {round_} of {rounds}, {clients} clients"

    def evaluated(self, task: str, accuracy: float, without: float | None, clients: int) -> None:
        """Remember the last accuracy."""
        super().evaluated(task, accuracy, without, clients)
        beside = "not measured" if without is None else f"{100 * without:.1f} %"
        self._last = f"last: {task} {100 * accuracy:.1f} % (without updates {beside})"

    def render(self) -> Group:
        """The table as it is now: those connected first, as many as fit."""
        sessions = sorted(self._sessions.all(), key=lambda s: (s.stream is None, s.name))
        connected = sum(session.stream is not None for session in sessions)
        up, down = (sum(getattr(session, way) for session in sessions) for way in ("up", "down"))
        table = Table("client", "state", "up", "down", box=None)
        for session in sessions[:ROWS]:
            table.add_row(
                session.name, self._state(session), f"{session.up:,}", f"{session.down:,}"
            )
        if len(sessions) > ROWS:
            table.add_row(f"and {len(sessions) - ROWS} more", "", "", "")
        head = (
            f"{self._now} | {connected} of {len(sessions)} connected | {up:,} B up, {down:,} B down"
        )
        return Group(table, Text(head), Text(self._last))

    def name_of(self, client: str) -> str:
        """A client's own name beside its node id."""
        names = {str(session.node): session.name for session in self._sessions.all()}
        return f"{names[client]} ({client})" if client in names else client

    def _state(self, session: Session) -> str:
        if session.expelled:
            return "revoked"
        if session.stream is None:
            return "away"
        if str(session.node) in self._overdue:
            return "silent"
        return "idle" if all(entry.retired for entry in list(session.open.values())) else "working"
