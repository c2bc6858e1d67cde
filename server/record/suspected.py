"""Of whom it is suspected that they spoiled a hidden sum, also when a server starts again."""

from __future__ import annotations

from collections.abc import Iterable

from sqlalchemy import delete, select

from server.record.opened import insistently
from server.record.registry import Registry
from server.record.tables_beside import SuspectEntry


@insistently
def suspect(registry: Registry, run: int, task: int, nodes: Iterable[int]) -> None:
    """Record who is suspected in a task from now on, and nobody else there."""
    of_task = SuspectEntry.run == run, SuspectEntry.task == task
    with registry.writing(f"suspects of task {task} of run {run}") as session:
        session.execute(delete(SuspectEntry).where(*of_task))
        session.add_all(SuspectEntry(run=run, task=task, client=str(node)) for node in nodes)


def suspected(registry: Registry, run: int) -> dict[int, frozenset[int]]:
    """Who is suspected in each task of a run where anybody is, by the task's number."""
    found: dict[int, set[int]] = {}
    with registry.reading() as session:
        for row in session.scalars(select(SuspectEntry).where(SuspectEntry.run == run)):
            found.setdefault(row.task, set()).add(int(row.client))
    return {task: frozenset(nodes) for task, nodes in found.items()}
