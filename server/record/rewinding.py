"""Going back to an earlier round of a task; what is undone stays in the registry as such."""

from __future__ import annotations

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from recast_core.errors import RecastError
from recast_core.kept_task import parse_kept
from server.record.losses import forget_losses
from server.record.opened import insistently
from server.record.registry import Registry
from server.record.runs import now
from server.record.tables import Accuracy, HeadEntry, HeldBack, Median, Round, Run, Task
from server.record.tables_beside import Rewind, RewoundAccuracy, RewoundRound


@insistently
def ask_rewind(registry: Registry, run: int, name: str, round_: int) -> int:
    """Ask for a task to go back to what it was after a round, 0 for its start; the request's id.

    Raises:
        RecastError: no such run or task, or the task has no such round to go back to.
    """
    task = registry.task(run, name)
    recorded = [entry.round for entry in registry.rounds(run, task.number)]
    if not recorded:
        raise RecastError(f"task {name!r} of run {run} has no finished round: nothing to rewind")
    if round_ not in (0, *recorded[:-1]):
        raise RecastError(
            f"task {name!r} of run {run} cannot go back to round {round_}: it is at round "
            f"{recorded[-1]}, give a lower one, or 0 for its start"
        )
    entry = Rewind(run=run, task=task.number, round=round_, before=recorded[-1], asked=now())
    with registry.writing(f"a rewind of task {name!r} of run {run}") as session:
        registry.existing(session, run)
        session.add(entry)
    return entry.id


@insistently
def rewind_asked(registry: Registry, run: int) -> list[int]:
    """Do all rewinds of a run that were asked for; the numbers of the tasks that went back."""
    query = select(Rewind).where(Rewind.run == run, Rewind.done.is_(None)).order_by(Rewind.id)
    with registry.reading() as session:
        if session.scalar(query.limit(1)) is None:
            return []
    tasks = []
    with registry.writing(f"rewinds of run {run}") as session:
        for entry in session.scalars(query):
            _go_back(session, entry)
            tasks.append(entry.task)
    return tasks


@insistently
def reopen(registry: Registry, run: int) -> None:
    """Let a run that was finished go on when its command is given again."""
    with registry.writing(f"run {run}") as session:
        found = registry.existing(session, run)
        if found.status == "finished":
            found.status, found.closed = "interrupted", False


def _go_back(session: Session, entry: Rewind) -> None:
    of_task = Round.run == entry.run, Round.task == entry.task, Round.round > entry.round
    for row in session.scalars(select(Round).where(*of_task).order_by(Round.round)):
        session.add(
            RewoundRound(
                rewind=entry.id,
                round=row.round,
                count=row.count,
                coefficients=row.coefficients,
                examples=row.examples,
                clients=row.clients,
                recorded=row.recorded,
            )
        )
    measured = (
        Accuracy.run == entry.run, Accuracy.task == entry.task, Accuracy.round > entry.round,
    )  # fmt: skip
    for found in session.scalars(select(Accuracy).where(*measured).order_by(Accuracy.id)):
        session.add(
            RewoundAccuracy(
                rewind=entry.id,
                round=found.round,
                after_task=found.after_task,
                accuracy=found.accuracy,
                examples=found.examples,
                clients=found.clients,
            )
        )
    session.flush()
    gone = select(Accuracy.id).where(*measured)
    session.execute(delete(Median).where(Median.evaluation.in_(gone)))
    session.execute(delete(Accuracy).where(*measured))
    session.execute(
        delete(HeldBack).where(
            HeldBack.run == entry.run, HeldBack.task == entry.task, HeldBack.round > entry.round
        )
    )
    forget_losses(session, entry.run, entry.task, entry.round)
    if _own_head(session, entry):
        session.execute(
            delete(HeadEntry).where(HeadEntry.run == entry.run, HeadEntry.task == entry.task)
        )
    session.execute(delete(Round).where(*of_task))
    entry.done = now()


def _own_head(session: Session, entry: Rewind) -> bool:
    """Whether a task's head in the registry was merged for it, and not kept of an earlier task."""
    config = session.scalars(select(Run.config).where(Run.id == entry.run)).one()
    kept = parse_kept(str(config.get("head", "")))
    if kept is None or kept.path:
        return kept is None
    named = select(Task.number).where(Task.run == entry.run, Task.name == kept.name)
    first = session.scalars(named).first()
    return first is not None and entry.task <= first
