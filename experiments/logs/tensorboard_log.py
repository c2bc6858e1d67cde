"""A log for TensorBoard: event files in a folder."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

from experiments.logs.callback import Callback, RoundFinished, RunStarted, TaskFinished
from experiments.logs.scalars import of_round, of_task
from recast_core.errors import RecastError


class TensorboardLog(Callback):
    """Scalars by task, a histogram of each round's coefficients, and the settings as text."""

    def __init__(self, where: str) -> None:
        """Prepare to write to a folder of the run's own in the folder ``where``.

        Raises:
            RecastError: TensorBoard is not installed, or the folder cannot be written.
        """
        if find_spec("tensorboard") is None:
            raise RecastError(
                "log tensorboard needs TensorBoard: `pip install 'recast-fl[tensorboard]'`"
            )
        self._where = Path(where)
        try:
            self._where.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RecastError(f"cannot write log {where} ({error}): name another folder") from error
        self._writer: Any = None

    def run_started(self, event: RunStarted) -> None:
        """Open the event file; a run that goes on writes to the folder that it had."""
        from torch.utils.tensorboard import SummaryWriter

        folder = self._where / f"{event.folder.name}-{event.run}"
        self._writer = SummaryWriter(str(folder))
        rows = [f"| {name} | {value} |" for name, value in event.settings.items()]
        self._writer.add_text("settings", "\n".join(["| setting | value |", "|---|---|", *rows]))

    def round_finished(self, event: RoundFinished) -> None:
        """Write the round's numbers."""
        for name, value in of_round(event).items():
            self._writer.add_scalar(f"{event.task}/{name}", value, event.step)
        self._writer.add_histogram(f"{event.task}/coefficients", event.coefficients, event.step)
        self._writer.flush()

    def task_finished(self, event: TaskFinished) -> None:
        """Write the task's accuracies."""
        for name, value in of_task(event).items():
            self._writer.add_scalar(f"tasks/{event.task}/{name}", value, event.step)
        self._writer.flush()

    def close(self) -> None:
        """Close the event file."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None
