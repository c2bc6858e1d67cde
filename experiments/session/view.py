"""What Python shows of a run: nothing, the command's progress, or a notebook's."""

from __future__ import annotations

import sys
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Any

from experiments.command.progress import ProgressObserver
from experiments.session.simulation import View
from recast_core.start import Start
from recast_core.text import how_many
from server.exchange.observer import LOST

_SECONDS = 0.25


@contextmanager
def shown(tasks: int, progress: bool | None) -> Iterator[View]:
    """The view of a simulation.

    Args:
        tasks: of the run.
        progress: show it; where ``None``, on a terminal and in a notebook.
    """
    if progress is None:
        progress = in_notebook() or sys.stderr.isatty()
    if not progress:
        yield Quiet()
    elif in_notebook():
        with NotebookView(tasks).open() as view:
            yield view
    else:
        with ProgressObserver(tasks) as bar:
            yield bar


def in_notebook() -> bool:
    """Whether a notebook's kernel runs this."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return type(shell).__name__ == "ZMQInteractiveShell"


class Quiet(View):
    """Shows nothing."""

    def answered(self) -> None:
        """Nothing."""

    def run_started(self, start: Start) -> None:
        """Nothing."""

    def joined(self, clients: int, delivered: int) -> None:
        """Nothing."""

    def round_started(self, task: str, round_: int, rounds: int, clients: int) -> None:
        """Nothing."""

    def learned(self, task: str, round_: int, loss: float, clients: int) -> None:
        """Nothing."""

    def round_finished(self, task: str, round_: int, updates: int, seconds: float) -> None:
        """Nothing."""

    def evaluated(self, task: str, accuracy: float, without: float | None, clients: int) -> None:
        """Nothing."""

    def refused(self, client: str, reason: str, detail: str) -> None:
        """Nothing."""

    def overdue(self, clients: Collection[str]) -> None:
        """Nothing."""


class NotebookView(Quiet):
    """A bar and a few lines in one output of a notebook, brought up to date in place."""

    def __init__(self, tasks: int) -> None:
        self._tasks = tasks
        self._now, self._said = "making ready", list[str]()
        self._done, self._total, self._shown = 0, 0, 0.0
        self._loss = ""
        self._output: Any = None

    @contextmanager
    def open(self) -> Iterator[NotebookView]:
        """Show it, and bring it up to date once more at the end."""
        from IPython.display import display

        self._output = display(self, display_id=True)
        try:
            yield self
        finally:
            self._now = "done" if self._total and self._done >= self._total else "ended"
            self._update(at_once=True)

    def answered(self) -> None:
        """Move the bar."""
        if self._total:
            self._done += 1
            self._update()

    def joined(self, clients: int, delivered: int) -> None:
        """Say who is there."""
        self._say(f"{how_many(clients, 'client')} ready, bank sent to {delivered}")

    def round_started(self, task: str, round_: int, rounds: int, clients: int) -> None:
        """Say what goes on."""
        self._total = self._total or self._tasks * (rounds + 1) * clients
        self._now = f"{task}: round {round_} of {rounds}{self._loss}"
        self._loss = ""
        self._update(at_once=True)

    def learned(self, task: str, round_: int, loss: float, clients: int) -> None:
        """Remember it for the next round's line."""
        self._loss = f", loss {loss:.3f} in round {round_}"

    def evaluated(self, task: str, accuracy: float, without: float | None, clients: int) -> None:
        """Say how well it went."""
        beside = "" if without is None else f", without updates {100 * without:.1f} %"
        self._say(
            f"{task}: accuracy {100 * accuracy:.1f} %{beside}, on {how_many(clients, 'client')}"
        )

    def refused(self, client: str, reason: str, detail: str) -> None:
        """Say who is left out; a simulated fleet's losses are the report's."""
        if reason not in LOST.values() and len(self._said) < 20:
            self._say(f"client {client} left out ({reason}): {detail}")

    def _say(self, line: str) -> None:
        self._said.append(line)
        self._update(at_once=True)

    def _update(self, *, at_once: bool = False) -> None:
        if self._output is None or not (at_once or time.monotonic() - self._shown > _SECONDS):
            return
        self._shown = time.monotonic()
        self._output.update(self)

    def __repr__(self) -> str:
        done = min(self._done, self._total)  # tasks are also evaluated again at the end
        share = f"{done}/{self._total} client rounds" if self._total else ""
        return "\n".join([*self._said, f"{self._now} {share}".strip()])

    def _repr_html_(self) -> str:
        import html

        lines = "".join(f"<div>{html.escape(line)}</div>" for line in self._said)
        done, total = min(self._done, self._total), self._total or 1
        bar = f'<progress value="{done}" max="{total}"></progress>'
        return f"{lines}<div>{bar} {html.escape(self._now)}</div>"
