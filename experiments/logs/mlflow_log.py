"""A log for MLflow: a folder with a database, or the address of a tracking server."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from experiments.logs.callback import Callback, RoundFinished, RunStarted, TaskFinished
from experiments.logs.scalars import of_round, of_task
from recast_core.errors import RecastError

EXPERIMENT = "recast"
# MLflow refuses longer values of parameters.
_LONGEST = 500


class MlflowLog(Callback):
    """Metrics by task, and the settings as parameters, in the experiment ``recast``."""

    def __init__(self, where: str) -> None:
        """Prepare to log to the folder or address ``where``.

        Raises:
            RecastError: MLflow is not installed, or the folder cannot be written.
        """
        if find_spec("mlflow") is None:
            raise RecastError("log mlflow needs MLflow: `pip install 'recast-fl[mlflow]'`")
        self._where = where
        self._artifacts: str | None = None
        if "://" not in where:
            folder = Path(where).resolve()
            try:
                folder.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise RecastError(
                    f"cannot write log {where} ({error}): name another folder"
                ) from error
            # Folders of files, the way of old, are refused by MLflow 3.
            self._where = f"sqlite:///{folder / 'mlflow.db'}"
            self._artifacts = (folder / "artifacts").as_uri()
        self._client: Any = None
        self._run = ""
        self._status = "FAILED"

    def run_started(self, event: RunStarted) -> None:
        """Create the run."""
        from mlflow import MlflowClient

        logging.getLogger("mlflow.store.db.utils").setLevel(logging.WARNING)
        self._client = client = MlflowClient(self._where)
        experiment = client.get_experiment_by_name(EXPERIMENT)
        if experiment is not None:
            number = experiment.experiment_id
        else:
            number = client.create_experiment(EXPERIMENT, self._artifacts)
        name = f"{event.folder.name}-{event.run}"
        self._run = client.create_run(number, run_name=name).info.run_id
        for key, value in {**event.settings, "bank-sha256": event.bank}.items():
            client.log_param(self._run, key, str(value)[:_LONGEST])

    def round_finished(self, event: RoundFinished) -> None:
        """Log the round's numbers."""
        for name, value in of_round(event).items():
            self._client.log_metric(self._run, f"{event.task}/{name}", value, step=event.step)

    def task_finished(self, event: TaskFinished) -> None:
        """Log the task's accuracies."""
        for name, value in of_task(event).items():
            key = f"tasks/{event.task}/{name}"
            self._client.log_metric(self._run, key, value, step=event.step)

    def run_finished(self, report: Mapping[str, Any]) -> None:
        """The run ended well."""
        self._status = "FINISHED"

    def close(self) -> None:
        """End the run."""
        if self._run:
            self._client.set_terminated(self._run, self._status)
            self._run = ""
