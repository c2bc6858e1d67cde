"""What a registry has of a run, as pandas data frames."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from recast_core.errors import RecastError
from server.record.history import History
from server.record.ledger import COLUMNS, Ledger
from server.record.losses import round_losses

if TYPE_CHECKING:
    import pandas as pd

HISTORY = (
    "task", "round", "step", "updates", "examples", "seconds", "bytes_up", "bytes_down", "accuracy",
    "loss",
)  # fmt: skip
EVALUATIONS = (
    "task", "after", "round", "accuracy", "head_only_accuracy", "examples", "clients",
)  # fmt: skip


def frame(rows: Iterable[Any], columns: Sequence[str]) -> pd.DataFrame:
    """A data frame of rows.

    Raises:
        RecastError: pandas is not installed.
    """
    try:
        import pandas as pd
    except ImportError as error:
        raise RecastError(
            "data frames need pandas: `pip install 'recast-fl[sim]'`, or take what --json writes "
            "from run.summary"
        ) from error
    return pd.DataFrame(list(rows), columns=list(columns))


def frame_of(rows: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """A data frame of mappings that have the same keys, or some of them."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    return frame(([row.get(key) for key in columns] for row in rows), columns)


def ledger_frame(history: History, run: int) -> pd.DataFrame:
    """Every row of the ledger: one message of one client at one layer."""
    return frame(Ledger(history).rows(run), COLUMNS)


def history_frame(history: History, run: int) -> pd.DataFrame:
    """A row for each finished round, in the order of finishing; bytes of serialised messages."""
    totals = Ledger(history).totals(run, by=("task", "round", "direction", "layer"))
    losses = round_losses(history, run)
    rounds = sorted(
        ((task, row) for task in history.tasks(run) for row in history.rounds(run, task.number)),
        key=lambda found: found[1].id,
    )
    return frame(
        (
            (
                task.name,
                row.round,
                step,
                row.clients,
                row.examples,
                row.seconds,
                totals.get((task.name, row.round, "up", "message"), 0),
                totals.get((task.name, row.round, "down", "message"), 0),
                _or_nan(row.accuracy),
                _or_nan(losses.get((task.number, row.round))),
            )
            for step, (task, row) in enumerate(rounds, start=1)
        ),
        HISTORY,
    )


def _or_nan(value: float | None) -> float:
    """A number even where a whole column has none, so that it can be plotted."""
    return math.nan if value is None else value


def evaluations_frame(history: History, run: int) -> pd.DataFrame:
    """A row for each evaluation: of ``task`` when ``after`` had been learned."""
    names = {task.number: task.name for task in history.tasks(run)}
    return frame(
        (
            (
                names[row.task],
                names[row.after_task],
                row.round,
                row.accuracy,
                _or_nan(row.head_only_accuracy),
                row.examples,
                row.clients,
            )
            for row in history.accuracies(run)
        ),
        EVALUATIONS,
    )
