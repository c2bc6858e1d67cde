"""What a federation leaves, for Python: tables, a report, the bank and the tasks."""

from __future__ import annotations

import html
from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from experiments.command.run_folder import find_run, learned
from experiments.report.data import report_data
from experiments.session import frames
from recast_core.bank import TemplateBank
from recast_core.errors import RecastError
from recast_core.library import TaskLibrary
from recast_core.model import RecastModel
from server.prepare import bank_path
from server.record.history import History
from server.record.place import REGISTRY
from server.record.registry import Registry
from server.record.registry import Run as Entry

if TYPE_CHECKING:
    import pandas as pd

Found = TypeVar("Found")


class Run:
    """One run in a registry; everything is read from its folder when it is asked for.

    Attributes:
        folder: that holds the registry and the bank.
        number: of the run in the registry.
    """

    def __init__(self, folder: Path, number: int, summary: Mapping[str, Any] | None = None) -> None:
        """The run of this number; ``summary`` is what ``--json`` writes of it, if known."""
        self.folder, self.number = folder, number
        self._summary = summary

    @classmethod
    def open(cls, folder: Path | str | None = None, number: int | None = None) -> Run:
        """A run that was made before, from its folder: the newest under ``runs/`` where ``None``.

        Raises:
            RecastError: no such run.
        """
        path, found = find_run(None if folder is None else Path(folder), number)
        return cls(path.parent, found)

    @property
    def registry(self) -> Path:
        """The registry's file."""
        return self.folder / REGISTRY

    @cached_property
    def summary(self) -> Mapping[str, Any]:
        """What ``--json`` writes of a run; of one that was opened, what its report shows."""
        if self._summary is not None:
            return self._summary
        return report_data(self.registry, self.number)

    @property
    def settings(self) -> dict[str, Any]:
        """The settings that the run was made with, names with dashes."""
        return self._read(lambda history: dict(self._entry(history).config))

    @property
    def status(self) -> str:
        """``running``, ``finished``, ``interrupted`` or ``failed``."""
        return str(self._read(lambda history: self._entry(history).status))

    @property
    def tasks(self) -> pd.DataFrame:
        """A row for each task: classes, clients, rounds, accuracies, bytes of an update."""
        return frames.frame_of(report_data(self.registry, self.number)["tasks"])

    @property
    def history(self) -> pd.DataFrame:
        """A row for each finished round: updates, examples, seconds, bytes, accuracy."""
        return self._read(lambda history: frames.history_frame(history, self.number))

    @property
    def evaluations(self) -> pd.DataFrame:
        """A row for each evaluation of a task, when it was learned and again later."""
        return self._read(lambda history: frames.evaluations_frame(history, self.number))

    @property
    def ledger(self) -> pd.DataFrame:
        """Every row of the ledger. Layers measure the same bytes: never add them to each other."""
        return self._read(lambda history: frames.ledger_frame(history, self.number))

    @property
    def bank(self) -> TemplateBank:
        """The template bank of the run.

        Raises:
            RecastError: another method than recast, or a file that is missing.
        """
        identity = self._read(lambda history: self._entry(history).bank_sha256)
        if (method := self.settings.get("method", "recast")) != "recast":
            raise RecastError(f"this run trained {method}, which has no bank")
        path = bank_path(self.folder, identity)
        if not path.is_file():
            raise RecastError(f"no bank at {path}: restore it, it was written when the run started")
        return TemplateBank.load(path, identity)

    def report(self, path: Path | str | None = None) -> Path:
        """Write the run's page, beside the registry where ``path`` is ``None``; its file.

        Raises:
            RecastError: the extra ``report`` is missing, or the file cannot be written.
        """
        from experiments.report import report

        target = self.folder / "report.html" if path is None else Path(path)
        report(self.registry, target, self.number)
        return target

    def model(self, task: str) -> RecastModel:
        """The backbone with the run's bank and a task's coefficients, and the backbone's own head.

        Raises:
            RecastError: no such task, or no finished round of it.
        """
        with Registry(self.registry) as registry:
            return learned(registry, self._entry(registry), task).net

    def library(self, data: Mapping[str, str] | None = None) -> TaskLibrary:
        """The tasks that the run learned, with heads, to save, activate or export.

        A run that kept the deployed classifier has that for every task. Of another the heads stay
        with its clients, so that each is a ridge head fitted here.

        Args:
            data: DATA by task to fit heads on; a task's own where it is not named.

        Raises:
            RecastError: data that cannot be read, or a task of clients' own data that is not named.
        """
        from experiments.session.library import library_of

        with Registry(self.registry) as registry:
            return library_of(registry, self._entry(registry), data or {})

    def __repr__(self) -> str:
        return f"<run {self.number} in {self.folder}: {self.status}>"

    def _repr_html_(self) -> str:
        about = html.escape(repr(self))
        return f"<p><code>{about}</code></p>{self.tasks.to_html(index=False, na_rep='')}"

    def _read(self, look: Callable[[History], Found]) -> Found:
        with History(self.registry) as history:
            return look(history)

    def _entry(self, history: History) -> Entry:
        return next(run for run in history.runs() if run.id == self.number)
