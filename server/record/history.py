"""What a registry's file holds, to read."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import func, select

from recast_core.errors import RecastError
from server.record.opened import Opened, insistent
from server.record.rows import Refusal, Spending
from server.record.soundness import sound
from server.record.tables import (
    Accuracy,
    Baseline,
    ClassEntry,
    ClientName,
    HeadEntry,
    HeldBack,
    Median,
    RefusalEntry,
    Round,
    Run,
    ShareEntry,
    SpendingEntry,
    Task,
)
from server.record.tables_beside import Folder, LabelMix, Rewind, Writer


@insistent
class History(Opened):
    """A registry, to read.

    What its methods return is detached from the database and may be kept. Every method raises
    ``RecastError`` where the registry cannot be read.
    """

    def runs(self) -> list[Run]:
        """All runs, oldest first; of a database that several folders share, those of this one."""
        with self.reading() as session:
            return list(session.scalars(self._of_folder(select(Run)).order_by(Run.id)))

    def last_run(self) -> Run | None:
        """The run that was started last."""
        with self.reading() as session:
            query = self._of_folder(select(Run)).order_by(Run.id.desc())
            found: Run | None = session.scalar(query.limit(1))
            return found

    def _of_folder(self, query: Any) -> Any:
        """A query of runs, narrowed to those of this registry's folder."""
        if not self.place.url:
            return query
        return query.join(Folder, Folder.run == Run.id).where(Folder.folder == self.place.folder)

    def moment(self) -> tuple[object, ...]:
        """Another value whenever the folder's server has recorded something, in a database."""
        query = select(Writer.writer, Writer.writes).where(Writer.folder == self.place.folder)
        with self.reading() as session:
            return tuple(session.execute(query).one_or_none() or ())

    def is_closed(self, run: int) -> bool:
        """Whether the run has been told that no further task will come."""
        with self.reading() as session:
            return bool(session.scalar(select(Run.closed).where(Run.id == run)))

    def tasks(self, run: int) -> list[Task]:
        """The tasks of a run in the order of learning."""
        with self.reading() as session:
            return list(session.scalars(select(Task).where(Task.run == run).order_by(Task.number)))

    def task(self, run: int, name: str) -> Task:
        """The task of that name.

        Raises:
            RecastError: the run has none of that name.
        """
        tasks = self.tasks(run)
        for task in tasks:
            if task.name == name:
                return task
        names = ", ".join(task.name for task in tasks) or "none"
        raise RecastError(f"run {run} has no task {name!r}: name one of those it has ({names})")

    def class_lists(self, run: int) -> dict[int, tuple[str, ...]]:
        """The names of each task's classes in the order of their ids, where they are known."""
        query = select(ClassEntry).where(ClassEntry.run == run)
        found: dict[int, tuple[str, ...]] = {}
        with self.reading() as session:
            for row in session.scalars(query.order_by(ClassEntry.task, ClassEntry.id)):
                found[row.task] = (*found.get(row.task, ()), row.name)
        return found

    def label_mixes(self, run: int) -> dict[int, bytes]:
        """The fleet's packed label mix of each task that has one."""
        with self.reading() as session:
            rows = session.scalars(select(LabelMix).where(LabelMix.run == run))
            return {row.task: row.content for row in rows}

    def head(self, run: int, task: int) -> tuple[str, bytes] | None:
        """Kind and bytes of a task's head, where it is one that travels and has been merged."""
        with self.reading() as session:
            found = session.get(HeadEntry, (run, task))
            return None if found is None else (found.kind, found.content)

    def rounds(self, run: int, task: int) -> list[Round]:
        """The finished rounds of a task, in order."""
        query = select(Round).where(Round.run == run, Round.task == task).order_by(Round.round)
        with self.reading() as session:
            return list(session.scalars(query))

    def round(self, run: int, task: int, round: int) -> Round:
        """One finished round of a task.

        Raises:
            RecastError: it has not finished.
        """
        query = select(Round).where(Round.run == run, Round.task == task, Round.round == round)
        with self.reading() as session:
            found = session.scalar(query)
        if found is None:
            raise RecastError(f"round {round} of task {task} of run {run} is not in {self.place}")
        return found

    def latest(self, run: int) -> tuple[int, int] | None:
        """Task number and round of the round recorded last, ``None`` before the first."""
        query = select(Round.task, Round.round).where(Round.run == run).order_by(Round.id.desc())
        with self.reading() as session:
            row = session.execute(query.limit(1)).first()
            if row is None:
                return None
            task, round_ = sound("rounds", row, (int, int))
        return task, round_

    def last_rounds(self, run: int) -> dict[int, int]:
        """The last finished round of each task that has one, by the task's number."""
        query = select(Round.task, func.max(Round.round)).where(Round.run == run)
        with self.reading() as session:
            rows = session.execute(query.group_by(Round.task))
            return dict(sound("rounds", row, (int, int)) for row in rows)

    def coefficients(self, run: int, task: int, round: int | None = None) -> NDArray[np.float32]:
        """The coefficients after a round, the last one where ``None``: float32 ``[D]``, exact bits.

        Raises:
            RecastError: no such round, or its coefficients were damaged in the file.
        """
        query = select(Round).where(Round.run == run, Round.task == task)
        if round is not None:
            query = query.where(Round.round == round)
        with self.reading() as session:
            found = session.scalar(query.order_by(Round.round.desc()).limit(1))
        which = f"task {task} of run {run}"
        if found is None:
            wanted = "finished round" if round is None else f"finished round {round}"
            raise RecastError(f"{which} has no {wanted} in {self.place}: train it first")
        if len(found.coefficients) != 4 * found.count:
            raise RecastError(
                f"{self.place} is damaged: round {found.round} of {which} holds "
                f"{len(found.coefficients)} bytes for {found.count} coefficients; restore a copy"
            )
        vector = np.frombuffer(found.coefficients, "<f4").astype(np.float32)
        if not np.isfinite(vector).all():
            raise RecastError(
                f"{self.place} is damaged: round {found.round} of {which} holds NaN or infinity; "
                "restore a copy, or go back with `recast tasks rewind`"
            )
        return vector

    def accuracies(self, run: int) -> list[Accuracy]:
        """All evaluations of a run in the order of recording."""
        query = select(Accuracy).where(Accuracy.run == run).order_by(Accuracy.id)
        with self.reading() as session:
            return list(session.scalars(query))

    def baselines(self, run: int) -> dict[int, dict[str, float]]:
        """What methods that send nothing reach of each task, when it was learned, by its number."""
        query = select(Baseline).where(Baseline.run == run, Baseline.after_task == Baseline.task)
        found: dict[int, dict[str, float]] = {}
        with self.reading() as session:
            for row in session.scalars(query):
                found.setdefault(row.task, {})[row.name] = row.accuracy
        return found

    def medians(self, run: int) -> dict[int, float]:
        """The median over clients of each evaluation, by its id; none of runs of before."""
        query = select(Median).join(Accuracy, Accuracy.id == Median.evaluation)
        with self.reading() as session:
            found = session.scalars(query.where(Accuracy.run == run))
            return {row.evaluation: row.median for row in found}

    def rewinds(self, run: int) -> list[Rewind]:
        """What tasks went back to, or are to, in the order of asking."""
        query = select(Rewind).where(Rewind.run == run).order_by(Rewind.id)
        with self.reading() as session:
            return list(session.scalars(query))

    def held_back(self, run: int, task: int | None = None, first: int = 0) -> list[HeldBack]:
        """The updates that did not count whole, by task, round and client.

        Args:
            run: the run.
            task: of this one alone, where it is given.
            first: the round from which on.
        """
        query = select(HeldBack).where(HeldBack.run == run, HeldBack.round >= first)
        if task is not None:
            query = query.where(HeldBack.task == task)
        order = HeldBack.task, HeldBack.round, HeldBack.client
        with self.reading() as session:
            return list(session.scalars(query.order_by(*order)))

    def left_out(self, run: int, task: int, first: int) -> dict[str, int]:
        """In how many rounds of a task from ``first`` on a client's update did not count at all."""
        query = (
            select(HeldBack.client, func.count())
            .where(HeldBack.run == run, HeldBack.task == task, HeldBack.round >= first)
            .where(HeldBack.share == 0)
            .group_by(HeldBack.client)
        )
        with self.reading() as session:
            return {str(client): int(times) for client, times in session.execute(query)}

    def accuracy_matrix(self, run: int) -> NDArray[np.float64]:
        """The forgetting matrix ``[T, T]``: row b, column a is task a after task b was learned.

        Tasks in the order of their numbers. The last evaluation counts where there are several; NaN
        where there is none.
        """
        count = len(self.tasks(run))
        matrix = np.full((count, count), np.nan)
        for entry in self.accuracies(run):
            place = entry.after_task - 1, entry.task - 1
            if not all(0 <= number < count for number in place):
                raise RecastError(
                    f"{self.path} is damaged (task {entry.task} of {count}): restore a copy"
                )
            matrix[place] = entry.accuracy
        return matrix

    def spendings(self, run: int) -> list[Spending]:
        """What a run has spent of its privacy budget, in the order of recording."""
        query = select(SpendingEntry).where(SpendingEntry.run == run).order_by(SpendingEntry.id)
        names = [field.name for field in fields(Spending)]
        with self.reading() as session:
            return [
                Spending(**{name: getattr(row, name) for name in names})
                for row in session.scalars(query)
            ]

    def client_names(self, run: int) -> dict[str, str]:
        """What clients are called, by their node ids; those without a name are absent."""
        query = select(ClientName).where(ClientName.run == run)
        with self.reading() as session:
            return {row.client: row.name for row in session.scalars(query)}

    def refusals(self, run: int) -> list[Refusal]:
        """All refusals of a run in the order of recording."""
        query = select(RefusalEntry).where(RefusalEntry.run == run).order_by(RefusalEntry.id)
        with self.reading() as session:
            return [
                Refusal(row.client, row.task, row.round, row.reason, row.detail, row.times)
                for row in session.scalars(query)
            ]

    def shares(self, run: int) -> list[ShareEntry]:
        """What clients announced of each task."""
        query = select(ShareEntry).where(ShareEntry.run == run)
        with self.reading() as session:
            return list(session.scalars(query.order_by(ShareEntry.task, ShareEntry.client)))
