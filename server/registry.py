"""The registry: runs, tasks, rounds and accuracies in one SQLite file, each write a transaction.

A write that has returned is on the disk (WAL, ``synchronous=FULL``): a process killed at any moment
loses no round that it had reported as finished.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import func, insert, select
from sqlalchemy.orm import Session

from recast_core.errors import RecastError
from server.database import plain_errors
from server.history import History
from server.tables import (
    Accuracy,
    Base,
    LedgerEntry,
    LedgerRow,
    Refusal,
    RefusalEntry,
    Round,
    Run,
    ShareEntry,
    Task,
)

__all__ = ["Accuracy", "Registry", "Round", "Run", "Task"]

DETAIL_CHARACTERS = 300

# On the tables: the ORM's own bulk insert builds each row twice.
_LEDGER = insert(Base.metadata.tables[LedgerEntry.__tablename__])
_REFUSALS = insert(Base.metadata.tables[RefusalEntry.__tablename__])


class Registry(History):
    """A registry's file, to read and to write."""

    @contextmanager
    def _writing(self, what: str) -> Iterator[Session]:
        with (
            plain_errors(self.path, f"recording {what}"),
            Session(self._engine.execution_options(write=True), expire_on_commit=False) as session,
            session.begin(),
        ):
            yield session

    def start_run(
        self,
        config: Mapping[str, object],
        bank_sha256: bytes,
        versions: Mapping[str, str],
        command: str | None = None,
    ) -> int:
        """Begin a run and return its id.

        Args:
            config: kept as JSON; values that JSON lacks are kept as their ``str``.
            bank_sha256: 32 bytes.
            versions: package name to version.
            command: the command line, this process's own where ``None``.
        """
        run = Run(
            status="running",
            command=shlex.join(sys.argv) if command is None else command,
            config=dict(config),
            versions=dict(versions),
            bank_sha256=bank_sha256,
            started=_now(),
        )
        with self._writing("a run") as session:
            Base.metadata.create_all(session.connection())  # tables that an older file lacks
            session.add(run)
        return run.id

    def finish_run(self, run: int, status: Literal["finished", "interrupted", "failed"]) -> None:
        """Record how a run ended, and when. A resumed run ends again."""
        with self._writing(f"the end of run {run}") as session:
            found = session.get(Run, run)
            if found is None:
                raise RecastError(f"{self.path} has no run {run}: `recast tasks list` shows them")
            found.status, found.finished = status, _now()

    def add_task(
        self, run: int, name: str, classes: int, examples: int = 0, clients: int = 0
    ) -> int:
        """Add a task to a run and return its number, from 1 in the order of adding.

        Args:
            run: the run.
            name: unique in the run, not empty.
            classes: of the task as a whole.
            examples: training examples over all clients.
            clients: clients with data for it.
        """
        with self._writing(f"task {name!r} of run {run}") as session:
            last = session.scalar(select(func.max(Task.number)).where(Task.run == run)) or 0
            task = Task(
                run=run,
                number=last + 1,
                name=name,
                classes=classes,
                examples=examples,
                clients=clients,
            )
            session.add(task)
        return task.number

    def record_shares(self, run: int, task: int, shares: Mapping[str, tuple[int, int]]) -> None:
        """Record what each client announced of a task: its training and its test images.

        A client that announces a task again replaces what it said before.
        """
        rows = [
            ShareEntry(run=run, task=task, client=client, train_examples=train, test_examples=test)
            for client, (train, test) in shares.items()
        ]
        with self._writing(f"the shares of task {task} of run {run}") as session:
            for row in rows:
                session.merge(row)

    def record_round(
        self,
        run: int,
        task: int,
        round: int,
        coefficients: NDArray[np.float32],
        examples: int,
        clients: int,
        seconds: float,
        accuracy: float | None,
        ledger_rows: Sequence[LedgerRow],
        refusals: Sequence[Refusal] = (),
    ) -> None:
        """Record a finished round, its bytes and its refusals: all of it or nothing.

        Args:
            run: the run.
            task: the task's number.
            round: from 1, once for each task.
            coefficients: float32 ``[D]``, aggregated, finite.
            examples: that the clients trained on in this round.
            clients: whose updates were aggregated.
            seconds: that the round took.
            accuracy: a fraction, ``None`` where none was measured.
            ledger_rows: all bytes since the last record.
            refusals: all refusals since the last record.

        Raises:
            RecastError: coefficients of another type or shape or not finite, or the round is
                already recorded.
        """
        what = f"round {round} of task {task} of run {run}"
        if coefficients.dtype != np.float32 or coefficients.ndim != 1:
            raise RecastError(
                f"{what}: {coefficients.dtype} coefficients of shape {list(coefficients.shape)}: "
                "give float32 [D]"
            )
        if not np.isfinite(coefficients).all():
            raise RecastError(f"{what} ended in NaN or infinity: lower the learning rate")
        row = Round(
            run=run,
            task=task,
            round=round,
            count=coefficients.size,
            coefficients=coefficients.astype("<f4").tobytes(),
            examples=examples,
            clients=clients,
            seconds=seconds,
            accuracy=accuracy,
            recorded=_now(),
        )
        with self._writing(what) as session:
            session.add(row)
            _add_traffic(session, run, ledger_rows, refusals)

    def record_accuracy(
        self,
        run: int,
        task: int,
        round: int,
        accuracy: float,
        head_only_accuracy: float | None,
        examples: int,
        clients: int,
        after_task: int | None = None,
        ledger_rows: Sequence[LedgerRow] = (),
        refusals: Sequence[Refusal] = (),
    ) -> None:
        """Record one evaluation, its bytes and its refusals: all of it or nothing.

        Args:
            run: the run.
            task: the number of the task that was evaluated.
            round: whose coefficients were evaluated, 0 for the bank's start.
            accuracy: a fraction.
            head_only_accuracy: of the same head on the backbone as it came, if measured.
            examples: held-out examples over all clients.
            clients: that evaluated.
            after_task: the number of the task learned last, ``task`` itself where ``None``.
            ledger_rows: all bytes since the last record.
            refusals: all refusals since the last record.
        """
        row = Accuracy(
            run=run,
            task=task,
            round=round,
            after_task=task if after_task is None else after_task,
            accuracy=accuracy,
            head_only_accuracy=head_only_accuracy,
            examples=examples,
            clients=clients,
        )
        with self._writing(f"an accuracy of task {task} of run {run}") as session:
            session.add(row)
            _add_traffic(session, run, ledger_rows, refusals)

    def record_traffic(
        self, run: int, ledger_rows: Sequence[LedgerRow], refusals: Sequence[Refusal] = ()
    ) -> None:
        """Record bytes and refusals that belong to no round, such as a bank's delivery."""
        with self._writing(f"traffic of run {run}") as session:
            _add_traffic(session, run, ledger_rows, refusals)


def _add_traffic(
    session: Session, run: int, rows: Sequence[LedgerRow], refusals: Sequence[Refusal]
) -> None:
    if rows:
        # Not asdict: it copies deeply, and rows come in tens of thousands.
        values = [
            {"run": run} | {name: getattr(row, name) for name in LedgerRow.__slots__}
            for row in rows
        ]
        session.execute(_LEDGER, values)
    if refusals:
        values = [
            asdict(refusal) | {"run": run, "detail": _one_line(refusal.detail)}
            for refusal in refusals
        ]
        session.execute(_REFUSALS, values)


def _one_line(detail: str) -> str:
    """The text of a client, which may be anything, as one short line."""
    return " ".join(detail.split())[:DETAIL_CHARACTERS]


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
