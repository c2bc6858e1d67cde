"""The registry: runs, tasks, rounds and accuracies in one database, each write a transaction.

That is an SQLite file, or PostgreSQL. A write that has returned is on the disk (WAL,
``synchronous=FULL``; ``synchronous_commit``): a process killed at any moment loses no round that it
had reported as finished.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict

import numpy as np
from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from recast_core.errors import RecastError
from server.record.air import add_air
from server.record.entering import add_held_back, add_traffic, enter_shares
from server.record.losses import add_losses
from server.record.opened import insistent
from server.record.rows import Air, FinishedRound, LedgerRow, Measured, Refusal, Spending
from server.record.runs import Runs, now
from server.record.soundness import sound
from server.record.tables import (
    Accuracy,
    Baseline,
    ClassEntry,
    ClientName,
    HeadEntry,
    Median,
    Round,
    Run,
    SpendingEntry,
    Task,
)
from server.record.tables_beside import LabelMix

__all__ = ["Accuracy", "Registry", "Round", "Run", "Task"]


@insistent
class Registry(Runs):
    """A registry, to read and to write."""

    def add_task(
        self,
        run: int,
        name: str,
        classes: int = 0,
        examples: int = 0,
        clients: int = 0,
        source: str = "",
    ) -> int:
        """Add a task to a run and return its number, from 1 in the order of adding.

        Args:
            run: the run.
            name: unique in the run, not empty.
            classes: of the task as a whole, 0 until it is known.
            examples: training examples over all clients.
            clients: clients with data for it.
            source: its DATA specification.
        """
        with self.writing(f"task {name!r} of run {run}") as session:
            task = Task(
                run=run,
                number=next_number(session, run),
                name=name,
                classes=classes,
                examples=examples,
                clients=clients,
                source=source,
            )
            session.add(task)
        return task.number

    def describe_task(
        self, run: int, number: int, classes: int, shares: Mapping[str, tuple[int, int]]
    ) -> None:
        """Record what clients have announced of a task.

        Args:
            run: the run.
            number: of the task.
            classes: of the task as a whole.
            shares: each client's training and test images. A client that announces a task again
                replaces what it said before.
        """
        with self.writing(f"task {number} of run {run}") as session:
            task = session.get_one(Task, (run, number))
            task.classes, task.clients = classes, len(shares)
            task.examples = sum(train for train, _ in shares.values())
            rows = (
                {
                    "run": run,
                    "task": number,
                    "client": client,
                    "train_examples": train,
                    "test_examples": test,
                }
                for client, (train, test) in shares.items()
            )
            enter_shares(session, rows)

    def name_classes(self, run: int, number: int, names: Sequence[str]) -> None:
        """Record what a task's class ids mean, once and for good."""
        with self.writing(f"the classes of task {number} of run {run}") as session:
            rows = [ClassEntry(run=run, task=number, id=i, name=n) for i, n in enumerate(names)]
            session.add_all(rows)

    def name_clients(self, run: int, names: Mapping[str, str]) -> None:
        """Record what clients are called, by their node ids."""
        with self.writing(f"the names of the clients of run {run}") as session:
            for client, name in names.items():
                session.merge(ClientName(run=run, client=client, name=name))

    def keep_head(self, run: int, number: int, kind: str, content: bytes) -> None:
        """Record a task's head, of a kind that travels, in place of what was recorded before."""
        with self.writing(f"the head of task {number} of run {run}") as session:
            session.merge(HeadEntry(run=run, task=number, kind=kind, content=content))

    def record_rounds(
        self,
        run: int,
        rounds: Sequence[FinishedRound],
        ledger_rows: Sequence[LedgerRow],
        refusals: Sequence[Refusal] = (),
        spendings: Sequence[Spending] = (),
    ) -> None:
        """Record tasks' finished rounds, their bytes and their refusals: all of it or nothing.

        Args:
            run: the run.
            rounds: of one or more tasks.
            ledger_rows: all bytes since the last record.
            refusals: all refusals since the last record.
            spendings: what the rounds cost of a privacy budget.

        Raises:
            RecastError: coefficients of another type or shape or not finite, or a round is
                already recorded.
        """
        which = ", ".join(f"round {found.round} of task {found.task}" for found in rounds)
        rows = [_round_row(run, found) for found in rounds]
        with self.writing(f"{which} of run {run}") as session:
            session.add_all(rows)
            session.add_all(_spending_rows(run, spendings))
            for found in rounds:
                if found.mix:
                    session.merge(LabelMix(run=run, task=found.task, content=found.mix))
            session.flush()
            add_held_back(session, run, rounds)
            add_losses(session, run, rounds)
            add_traffic(session, run, ledger_rows, refusals)

    def record_seconds(self, run: int, rounds: Sequence[tuple[int, int]], seconds: float) -> None:
        """Record what rounds took, their own record included, and that they end now.

        Args:
            run: the run.
            rounds: a task's number and the round, recorded before.
            seconds: that they took together.
        """
        moment = now()  # not later: what began so many seconds before it is looked up by it
        with self.writing(f"the seconds of rounds of run {run}") as session:
            for task, round_ in rounds:
                where = (Round.run == run, Round.task == task, Round.round == round_)
                ended = update(Round).where(*where).values(seconds=seconds, recorded=moment)
                session.execute(ended)

    def record_spendings(self, run: int, spendings: Sequence[Spending]) -> None:
        """Record what will be spent of a privacy budget before anybody can see a result."""
        with self.writing(f"privacy spent by run {run}") as session:
            session.add_all(_spending_rows(run, spendings))

    def record_accuracies(
        self,
        run: int,
        found: Sequence[Measured],
        ledger_rows: Sequence[LedgerRow] = (),
        refusals: Sequence[Refusal] = (),
        on_the_way: Sequence[Measured] = (),
    ) -> None:
        """Record evaluations, their bytes and their refusals: all of it or nothing.

        Args:
            run: the run.
            found: evaluations of tasks that are learned.
            ledger_rows: all bytes since the last record.
            refusals: all refusals since the last record.
            on_the_way: evaluations of rounds before a task's last: what a learning curve shows.
        """
        tasks = ", ".join(f"task {one.task}" for one in [*found, *on_the_way])
        with self.writing(f"an accuracy of {tasks} of run {run}") as session:
            for one in found:
                told = asdict(one)
                baselines, median = told.pop("baselines"), told.pop("median")
                entry = Accuracy(run=run, recorded=now(), **told)
                session.add(entry)
                if median is not None:
                    session.flush()
                    session.add(Median(evaluation=entry.id, median=median))
                for name, accuracy in baselines.items():
                    row = Baseline(
                        run=run,
                        task=one.task,
                        after_task=one.after_task,
                        name=name,
                        accuracy=accuracy,
                    )
                    session.merge(row)
            for one in on_the_way:
                where = (Round.run == run, Round.task == one.task, Round.round == one.round)
                session.execute(update(Round).where(*where).values(accuracy=one.accuracy))
            add_traffic(session, run, ledger_rows, refusals)

    def record_traffic(
        self, run: int, ledger_rows: Sequence[LedgerRow], refusals: Sequence[Refusal] = ()
    ) -> None:
        """Record bytes and refusals that belong to no round, such as a bank's delivery."""
        with self.writing(f"traffic of run {run}") as session:
            add_traffic(session, run, ledger_rows, refusals)

    def record_air(self, run: int, rows: Sequence[Air]) -> None:
        """Record frames since this was last called."""
        with self.writing(f"frames of run {run}") as session:
            add_air(session, run, rows)


def next_number(session: Session, run: int) -> int:
    """The number of the next task of a run."""
    row = session.execute(select(func.max(Task.number)).where(Task.run == run)).one()
    (last,) = sound("tasks", row, (int | None,))
    return (last or 0) + 1


def _round_row(run: int, found: FinishedRound) -> Round:
    what, vector = f"round {found.round} of task {found.task} of run {run}", found.coefficients
    if vector.dtype != np.float32 or vector.ndim != 1:
        raise RecastError(
            f"{what}: {vector.dtype} coefficients of shape {list(vector.shape)}: give float32 [D]"
        )
    if not np.isfinite(vector).all():
        raise RecastError(f"{what} ended in NaN or infinity: lower the learning rate")
    return Round(
        run=run,
        task=found.task,
        round=found.round,
        count=vector.size,
        coefficients=vector.astype("<f4").tobytes(),
        examples=found.examples,
        clients=found.clients,
        seconds=found.seconds,
        accuracy=found.accuracy,
        recorded=now(),
    )


def _spending_rows(run: int, spendings: Sequence[Spending]) -> list[SpendingEntry]:
    return [SpendingEntry(run=run, **asdict(spending)) for spending in spendings]
