"""Training losses by client and round, where these are known: see ``--report-loss``."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import delete, func, insert, select
from sqlalchemy.orm import Session

from server.record.entering import enter_tuples
from server.record.history import History
from server.record.loss_table import LossEntry
from server.record.opened import insistently
from server.record.rows import FinishedRound
from server.record.tables import Base

_LOSSES = insert(Base.metadata.tables[LossEntry.__tablename__])


def add_losses(session: Session, run: int, rounds: Sequence[FinishedRound]) -> None:
    """Record what is known of rounds."""
    names = ("run", "task", "round", "client", "loss", "examples")
    rows = (
        (run, found.task, found.round, client, one.loss, one.examples)
        for found in rounds
        for client, one in found.losses.items()
    )
    enter_tuples(session, _LOSSES, names, rows)


def forget_losses(session: Session, run: int, task: int, round: int) -> None:
    """Forget those of the rounds after ``round``."""
    where = LossEntry.run == run, LossEntry.task == task, LossEntry.round > round
    session.execute(delete(LossEntry).where(*where))


@insistently
def round_losses(history: History, run: int) -> dict[tuple[int, int], float]:
    """The mean over all images, by the task's number and the round; unknown ones are absent."""
    mean = func.sum(LossEntry.loss * LossEntry.examples) / func.sum(LossEntry.examples)
    query = select(LossEntry.task, LossEntry.round, mean).where(LossEntry.run == run)
    with history.reading() as session:
        rows = session.execute(query.group_by(LossEntry.task, LossEntry.round)).all()
    return {(task, round_): float(loss) for task, round_, loss in rows}


@insistently
def client_losses(history: History, run: int, task: int, round: int) -> dict[str, float]:
    """Each client's loss in a round, by node id; unknown ones are absent."""
    where = LossEntry.run == run, LossEntry.task == task, LossEntry.round == round
    with history.reading() as session:
        return {row.client: row.loss for row in session.scalars(select(LossEntry).where(*where))}


@insistently
def latest_losses(history: History, run: int) -> dict[str, float]:
    """Each client's loss in the last of its rounds that is known, by node id."""
    query = select(LossEntry).where(LossEntry.run == run)
    with history.reading() as session:
        order = LossEntry.task, LossEntry.round
        return {row.client: row.loss for row in session.scalars(query.order_by(*order))}
