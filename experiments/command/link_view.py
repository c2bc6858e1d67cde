"""What a person sees of a server: a live table on a terminal, log lines elsewhere."""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import Any, Self

from rich.console import Console, Group
from rich.live import Live
from rich.logging import RichHandler
from rich.table import Table
from rich.text import Text

from experiments.command.caution import warn_of_many
from experiments.command.link_log import set_up
from experiments.command.working import clock
from recast_core.closing import Closing
from recast_core.start import Start
from recast_core.text import how_many
from server.exchange.observer import LogObserver
from server.link.session import Session
from server.link.sessions import Sessions
from server.record.database import AwayError
from server.record.history import History
from server.record.losses import client_losses
from server.record.place import is_there

ROWS = 20
# What a row shows, and whether it is a number; 80 columns hold it.
_COLUMNS = {
    "client": False, "state": False, "up, B": True, "down, B": True, "task": False,
    "images": True, "heard": True,
}  # fmt: skip
logger = logging.getLogger("recast.server")


class LinkView(LogObserver, Closing):
    """An observer that logs each event, and on a terminal shows who is connected meanwhile."""

    def __init__(self, sessions: Sessions, *, plain: bool, registry: Path | None = None) -> None:
        """Look at ``sessions``.

        Args:
            sessions: of the link.
            plain: keep to log lines.
            registry: of the run, which knows the clients' images.
        """
        self._registry = registry
        self._task, self._images = "", dict[str, int]()
        self._began, self._rounds_left = time.monotonic(), 0
        self._seconds: float | None = None
        self._sessions = sessions
        self._now = "waiting for clients"
        self._last = ""
        # Of the last round that told any, by node id.
        self._losses: dict[str, float] = {}
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
        self._now = f"{task}: round {round_} of {rounds}, {how_many(clients, 'client')}"
        self._task, self._began = task, time.monotonic()
        self._images = self._announced(task)
        self._rounds_left = rounds - round_ + 1

    def round_finished(self, task: str, round_: int, updates: int, seconds: float) -> None:
        """Remember how long a round takes."""
        super().round_finished(task, round_, updates, seconds)
        self._seconds = seconds
        self._losses |= self._told(task, round_)

    def evaluated(self, task: str, accuracy: float, without: float | None, clients: int) -> None:
        """Remember the last accuracy."""
        super().evaluated(task, accuracy, without, clients)
        beside = "not measured" if without is None else f"{100 * without:.1f} %"
        self._last = f"last: {task} {100 * accuracy:.1f} % (without updates {beside})"

    def run_finished(self) -> None:
        """Say so: whoever watches a server that goes learns it before anything else."""
        self._now, self._rounds_left = "the run is finished", 0

    def snapshot(self) -> dict[str, Any]:
        """What is going on and how each client stands, as JSON values."""
        sessions = sorted(self._sessions.all(), key=lambda s: s.name)
        return {
            "now": self._now + self._left(),
            "up": sum(session.up for session in sessions),
            "down": sum(session.down for session in sessions),
            "clients": [
                {
                    "name": session.name,
                    "state": self._state(session),
                    "up": session.up,
                    "down": session.down,
                    "heard": _heard(session),
                    "loss": self._losses.get(str(session.node)),
                }
                for session in sessions
            ],
        }

    def render(self) -> Group:
        """The table as it is now: those connected first, as many as fit."""
        sessions = sorted(self._sessions.all(), key=lambda s: (s.stream is None, s.name))
        connected = sum(session.stream is not None for session in sessions)
        up, down = (sum(getattr(session, way) for session in sessions) for way in ("up", "down"))
        table = Table(box=None, pad_edge=False, padding=(0, 1))
        columns = _COLUMNS | ({"loss": True} if self._losses else {})
        for name, right in columns.items():
            justify: Any = "right" if right else "left"
            table.add_column(name, justify=justify, no_wrap=True, overflow="ellipsis")
        for session in sessions[:ROWS]:
            table.add_row(*self._row(session))
        if len(sessions) > ROWS:
            table.add_row(f"and {len(sessions) - ROWS} more")
        head = (
            f"{self._now} | {connected} of {len(sessions)} connected | {up:,} B up, {down:,} B down"
        )
        return Group(table, Text(head + self._left()), Text(self._last))

    def _row(self, session: Session) -> list[str]:
        """A client: what it does, with how many images, its bytes, and when it was last heard."""
        state = self._state(session)
        images = self._images.get(str(session.node))
        loss = self._losses.get(str(session.node))
        return [
            session.name,
            state,
            f"{session.up:,}",
            f"{session.down:,}",
            self._task if state == "working" else "",
            "" if images is None else f"{images:,}",
            _heard(session),
            *(["" if loss is None else f"{loss:.3f}"] if self._losses else []),
        ]

    def _left(self) -> str:
        """How long the rest of the task will take, once a round has shown it."""
        if self._seconds is None or not self._rounds_left:
            return ""
        spent = time.monotonic() - self._began
        left = max(0.0, self._seconds * self._rounds_left - spent)
        return f" | about {clock(left)} left of {self._task}"

    def _announced(self, task: str) -> dict[str, int]:
        """The training images of a task that each client has announced, by its node id."""
        if self._registry is None or not is_there(self._registry):
            return {}
        try:
            with History(self._registry) as history:
                run = history.last_run()
                numbers = {} if run is None else {t.name: t.number for t in history.tasks(run.id)}
                if run is None or task not in numbers:
                    return {}
                shares = history.shares(run.id)
        except AwayError:  # the run waits for its database, a picture of it does not
            return {}
        return {s.client: s.train_examples for s in shares if s.task == numbers[task]}

    def _told(self, task: str, round_: int) -> dict[str, float]:
        """What clients told of their losses in a round, by node id."""
        if self._registry is None or not self._registry.exists():
            return {}
        with History(self._registry) as history:
            run = history.last_run()
            if run is None:
                return {}
            return client_losses(history, run.id, history.task(run.id, task).number, round_)

    def name_of(self, client: str) -> str:
        """A client's own name; its node id where the link does not know it."""
        names = {str(session.node): session.name for session in self._sessions.all()}
        return names.get(client, client)

    def _state(self, session: Session) -> str:
        if session.expelled:
            return "revoked"
        if session.stream is None:
            return "away"
        if str(session.node) in self._overdue:
            return "silent"
        return "idle" if all(entry.retired for entry in list(session.open.values())) else "working"


def _heard(session: Session) -> str:
    silent = time.monotonic() - (session.heard if session.stream else session.seen)
    return "now" if silent < 1 else f"{clock(silent)} ago"
