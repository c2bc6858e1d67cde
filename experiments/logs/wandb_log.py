"""A log for Weights & Biases; offline unless WANDB_MODE says otherwise."""

from __future__ import annotations

import os
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from experiments.logs.callback import Callback, RoundFinished, RunStarted, TaskFinished
from experiments.logs.scalars import of_round, of_task
from recast_core.errors import RecastError


class WandbLog(Callback):
    """Scalars by task, and the settings as the run's config."""

    def __init__(self, where: str) -> None:
        """Prepare to log to the project ``where``.

        Raises:
            RecastError: wandb is not installed.
        """
        if find_spec("wandb") is None:
            raise RecastError("log wandb needs wandb: `pip install 'recast-fl[wandb]'`")
        self._project = where
        self._run: Any = None

    def run_started(self, event: RunStarted) -> None:
        """Open the run, in the current folder's ``wandb/`` or where WANDB_DIR says."""
        wandb: Any = import_module("wandb")
        self._run = wandb.init(
            project=self._project,
            name=f"{event.folder.name}-{event.run}",
            config={**event.settings, "bank-sha256": event.bank},
            mode=os.environ.get("WANDB_MODE", "offline"),
            reinit="create_new",
        )

    def round_finished(self, event: RoundFinished) -> None:
        """Log the round's numbers."""
        numbers = of_round(event).items()
        self._run.log({f"{event.task}/{name}": value for name, value in numbers}, step=event.step)

    def task_finished(self, event: TaskFinished) -> None:
        """Log the task's accuracies, and keep them as the run's summary."""
        found = {f"tasks/{event.task}/{name}": value for name, value in of_task(event).items()}
        self._run.log(found, step=event.step)
        self._run.summary.update(found)

    def close(self) -> None:
        """Finish the run."""
        if self._run is not None:
            self._run.finish()
            self._run = None
