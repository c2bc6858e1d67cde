"""What another process may ask of a server: learn a further task, or wait for no more."""

from __future__ import annotations

from sqlalchemy import select

from recast_core.errors import RecastError
from recast_core.task_spec import TaskSpec
from server.record.registry import Registry, next_number
from server.record.tables import Run, Task


def add_task(registry: Registry, run: int, spec: TaskSpec) -> int:
    """Ask the server of ``run`` to learn a task, from its next round on; returns its number.

    A run that is interrupted learns it when it is continued.

    Raises:
        RecastError: the run is over or closed, or has a task of that name.
    """
    with registry.writing(f"task {spec.name!r} of run {run}") as session:
        found = registry.existing(session, run)
        _check_open(found)
        names = session.scalars(select(Task.name).where(Task.run == run))
        if spec.name.lower() in {name.lower() for name in names}:
            raise RecastError(
                f"run {run} has a task {spec.name!r} already: give this one another name, "
                f"NAME={str(spec).partition('=')[2]}"
            )
        number = next_number(session, run)
        session.add(
            Task(
                run=run,
                number=number,
                name=spec.name,
                classes=0,
                examples=0,
                clients=0,
                source=str(spec),
            )
        )
    return number


def close(registry: Registry, run: int) -> None:
    """Tell the server of ``run`` to end when all its tasks are learned.

    Raises:
        RecastError: the run is over.
    """
    with registry.writing(f"the closing of run {run}") as session:
        found = registry.existing(session, run)
        if found.status == "finished":
            raise RecastError(f"run {run} is finished: there is nothing to close")
        found.closed = True


def _check_open(run: Run) -> None:
    if run.status == "finished":
        raise RecastError(
            f"run {run.id} is finished: start a server with --keep-running to add tasks to it"
        )
    if run.closed:
        raise RecastError(f"run {run.id} is closed and takes no further tasks: start another")
