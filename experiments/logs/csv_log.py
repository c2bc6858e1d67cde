"""A log as one CSV file: a row for each round, and one for each task's evaluation."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import IO

from experiments.logs.callback import Callback, RoundFinished, RunStarted, TaskFinished
from experiments.logs.scalars import LOSS, ROUND, TASK, of_round, of_task
from recast_core.errors import RecastError

COLUMNS = (
    "run", "event", "task", "step", "round", *ROUND, *(n for n in TASK if n not in ROUND),
    LOSS,
)  # fmt: skip


class CsvLog(Callback):
    """Appends to a file; every row is there when the round is over, whatever comes next."""

    def __init__(self, where: str) -> None:
        """Prepare to write to the file ``where``.

        Raises:
            RecastError: it cannot be written, or holds something else.
        """
        path = Path(where)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("a+", newline="") as file:
                file.seek(0)
                first = file.readline().strip()
        except (OSError, UnicodeDecodeError) as error:
            raise RecastError(f"cannot write log {path} ({error}): name another file") from error
        # A file of before goes on without what it has no column for.
        columns = tuple(first.split(",")) if first else COLUMNS
        if columns not in (COLUMNS, COLUMNS[:-1]):
            raise RecastError(f"{path} is no log of recast: name another file")
        self._path, self._empty, self._columns = path, not first, columns
        self._file: IO[str] | None = None
        self._run = ""

    def run_started(self, event: RunStarted) -> None:
        """Open the file."""
        self._run = f"{event.folder.name}#{event.run}"
        self._file = self._path.open("a", newline="")
        self._writer = csv.DictWriter(
            self._file, self._columns, lineterminator="\n", extrasaction="ignore"
        )
        if self._empty:
            self._writer.writeheader()
            self._file.flush()

    def round_finished(self, event: RoundFinished) -> None:
        """Write a row of kind ``round``."""
        self._write("round", event.task, event.step, event.round, of_round(event))

    def task_finished(self, event: TaskFinished) -> None:
        """Write a row of kind ``task``."""
        self._write("task", event.task, event.step, None, of_task(event))

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _write(
        self, what: str, task: str, step: int, round_: int | None, numbers: dict[str, float]
    ) -> None:
        assert self._file is not None
        about = {"run": self._run, "event": what, "task": task, "step": step, "round": round_}
        self._writer.writerow(about | {name: f"{value:.9g}" for name, value in numbers.items()})
        self._file.flush()
