"""Taking the runs of a folder out of a database that others share."""

from __future__ import annotations

from sqlalchemy import delete, select

from server.record.registry import Registry
from server.record.tables import Accuracy, Base
from server.record.tables_beside import Rewind


def forget(registry: Registry) -> None:
    """Delete all runs of the registry's folder, where it is in a database; a file is left alone.

    Raises:
        RecastError: the database is away.
    """
    if not registry.place.url:
        return
    runs = [run.id for run in registry.runs()]
    evaluations = select(Accuracy.id).where(Accuracy.run.in_(runs))
    rewinds = select(Rewind.id).where(Rewind.run.in_(runs))
    # What names its run through another table.
    parents = {
        "medians": ("evaluation", evaluations),
        "rewound_rounds": ("rewind", rewinds),
        "rewound_accuracies": ("rewind", rewinds),
    }
    with registry.writing("that runs are removed") as session:
        for table in reversed(Base.metadata.sorted_tables):
            if table.name == "writers":
                session.execute(delete(table).where(table.c.folder == registry.place.folder))
            elif table.name in parents:
                column, of_runs = parents[table.name]
                session.execute(delete(table).where(table.c[column].in_(of_runs)))
            else:
                own = table.c["id" if table.name == "runs" else "run"]
                session.execute(delete(table).where(own.in_(runs)))
