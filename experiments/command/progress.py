"""What a person sees of a simulated run: a live view on a terminal, plain lines elsewhere."""

from __future__ import annotations

import resource
import sys
import threading
import time
from collections.abc import Collection
from contextlib import ExitStack
from typing import Self

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from experiments.command.caution import warn_of_many
from experiments.command.working import Work, clock
from recast_core.closing import Closing
from recast_core.pulse import listening
from recast_core.start import Start
from recast_core.text import how_many
from server.exchange.observer import LOST

QUIET_SECONDS = 10.0
_BAR = 20
# What an evaluation takes, in rounds.
_EVALUATION = 0.3


class ProgressObserver(Closing):
    """An observer that shows how far a run and its present work are, and how long they will take.

    A run consists of a step for each round of a task and a shorter one for its evaluation. Off a
    terminal, work that takes longer than ``QUIET_SECONDS`` says so in a line.
    """

    def __init__(self, tasks: int) -> None:
        """Of a run of so many tasks."""
        self._tasks = tasks
        self._console = Console(stderr=True)
        self._work = Work()
        self._lock = threading.Lock()
        self._now = "preparing"
        self._steps = self._done = self._weight = 0.0
        self._clients = self._answers = 0
        self._reached = 0.0
        self._began: float | None = None
        self._said = self._since = time.monotonic()
        self._warned: set[tuple[str, str]] = set()
        self._same = 0
        # A task, and what its last round's loss was.
        self._loss = "", ""
        self._stack = ExitStack()
        live = self._console.is_terminal
        self._live = Live(
            console=self._console, get_renderable=self.render, refresh_per_second=4, transient=True
        ) if live else None  # fmt: skip

    def __enter__(self) -> Self:
        self._stack.enter_context(listening(self))
        if self._live is not None:
            self._stack.enter_context(self._live)
        return self

    def close(self) -> None:
        """Leave the terminal as it was."""
        self._stack.close()

    def answered(self) -> None:
        """A client has answered."""
        with self._lock:
            self._answers += 1

    def about(self, task: str, round_: int) -> None:
        """See ``recast_core.pulse``: whoever starts a round says more."""

    def began(self, what: str, images: int) -> None:
        """See ``recast_core.pulse``."""
        with self._lock:
            self._work.begin(what, images)
            if not self._steps:
                self._now, self._since = what, time.monotonic()

    def advanced(self, images: int) -> None:
        """See ``recast_core.pulse``."""
        with self._lock:
            self._work.advance(images)
        if self._live is None and time.monotonic() - self._said > QUIET_SECONDS:
            before = "" if self._now == self._work.what else f"{self._now}: "
            self._line(f"{before}{self._work.line()}{self._left()}")

    def run_started(self, start: Start) -> None:
        """Warn of a configuration that trains many coefficients."""
        warn_of_many(start)
        self.began("greeting clients", 0)

    def joined(self, clients: int, delivered: int) -> None:
        """Say who is there."""
        if self._same:
            self._line(f"{self._same} more left out for reasons given above")
            self._same = 0
        self._line(f"{how_many(clients, 'client')} ready, bank sent to {delivered}")

    def round_started(self, task: str, round_: int, rounds: int, clients: int) -> None:
        """Say what goes on."""
        with self._lock:
            self._steps = self._tasks * (rounds + _EVALUATION)
            self._weight = 1.0
            self._began = self._began or time.monotonic()
            loss = self._loss[1] if self._loss[0] == task else ""
            self._now = f"{task}, round {round_} of {rounds}{loss}"
            self._clients, self._answers = clients, 0
            self._work = Work()

    def learned(self, task: str, round_: int, loss: float, clients: int) -> None:
        """Remember it for the round's line."""
        self._loss = task, f", loss {loss:.3f}"

    def round_finished(self, task: str, round_: int, updates: int, seconds: float) -> None:
        """Say that a round is done."""
        with self._lock:
            self._done += 1
            self._weight = _EVALUATION
            self._now, self._answers = f"{task}, after round {round_}", 0
            self._work, self._reached = Work(), 0.0
        if self._live is None:
            pace = f"{updates / max(seconds, 1e-9):.1f} clients/s, {_peak_mib():.0f} MiB"
            loss = self._loss[1] if self._loss[0] == task else ""
            self._line(
                f"{task} round {round_}: {how_many(updates, 'update')}{loss}, {seconds:.1f} s "
                f"({pace}){self._left()}"
            )

    def evaluated(self, task: str, accuracy: float, without: float | None, clients: int) -> None:
        """Say how well the task went."""
        with self._lock:
            self._done += self._weight
            self._work, self._reached = Work(), 0.0
        beside = "not measured" if without is None else f"{100 * without:.1f} %"
        self._line(
            f"{task}: accuracy {100 * accuracy:.1f} %, without updates {beside}, "
            f"on {how_many(clients, 'client')}"
        )

    def refused(self, client: str, reason: str, detail: str) -> None:
        """Warn of what was left out, once; a simulated fleet's losses are the closing table's."""
        if reason in LOST.values() or (reason == "no-data" and "share" in detail):
            return
        if (reason, detail) in self._warned:
            self._same += 1
            return
        self._warned.add((reason, detail))
        self._line(f"client {client} left out ({reason}): {detail}")

    def overdue(self, clients: Collection[str]) -> None:
        """Say who is no longer waited for."""
        if clients:
            self._line(f"not waited for any more: {', '.join(sorted(clients))}")

    def render(self) -> Group:
        """The view as it is now: at most two lines of 80 columns."""
        share, first = self._share(), Text(self._now, style="bold")
        if share is None:
            return Group(first.append(f"  {clock(time.monotonic() - self._since)}", "not bold"))
        bar = ProgressBar(total=1.0, completed=share, width=_BAR)
        spent = clock(time.monotonic() - (self._began or time.monotonic()))
        first.append(f"  {100 * share:.0f} %, {spent} so far{self._left()}", style="not bold")
        work = Text(self._work.line(), style="dim", overflow="ellipsis", no_wrap=True)
        line = Table.grid(padding=(0, 1))
        line.add_row(bar, work)
        return Group(first, line)

    def _share(self) -> float | None:
        """How much of the run is done, ``None`` before its first round."""
        if not self._steps:
            return None
        # A step consists of several works: the longest is what counts.
        self._reached = max(self._reached, self._work.share())
        return min(1.0, (self._done + self._weight * self._reached) / self._steps)

    def _left(self) -> str:
        """How long the rest of the run will take, once that can be told."""
        share = self._share()
        if share is None or self._began is None or share * self._steps < 0.1 or share >= 1:
            return ""
        spent = time.monotonic() - self._began
        return f", about {clock(spent * (1 - share) / share)} left"

    def _line(self, text: str) -> None:
        self._said = time.monotonic()
        self._console.print(text, highlight=False, markup=False, soft_wrap=True)


def _peak_mib() -> float:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1 << 20 if sys.platform == "darwin" else 1 << 10)
