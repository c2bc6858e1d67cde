"""``recast ledger``: a run's bytes and refusals, as a table or as files for other programs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.table import Table

from experiments.command.console import stdout
from recast_core.errors import RecastError
from server.record.history import History
from server.record.ledger import Ledger
from server.record.place import REGISTRY, is_there

LAYERS = ("payload", "message", "wire")


def ledger(
    path: Path, run: int | None = None, csv: Path | None = None, parquet: Path | None = None
) -> dict[str, Any]:
    """Print a run's totals by task and kind, write the files that are named, return the totals.

    Args:
        path: a run's folder, or its registry.
        run: the run's number, the last one where ``None``.
        csv: gets every row.
        parquet: gets every row.

    Raises:
        RecastError: no registry, no such run, or a file that cannot be written.
    """
    registry = path / REGISTRY if path.is_dir() else path
    if not is_there(registry):
        raise RecastError(f"no registry at {registry}: name the folder of a run")
    with History(registry) as history:
        known = [found.id for found in history.runs()]
        if not known:
            raise RecastError(f"{registry} holds no run yet: start one")
        number = known[-1] if run is None else run
        if number not in known:
            raise RecastError(f"{registry} has no run {number}: choose one of {known}")
        book = Ledger(history)
        totals = book.totals(number, by=("task", "kind", "direction", "layer"))
        refusals = book.refusals(number)
        if csv is not None:
            book.export_csv(csv, number)
        if parquet is not None:
            book.export_parquet(parquet, number)
    rows: dict[tuple[Any, Any], dict[str, Any]] = {}
    for (task, kind, direction, layer), size in totals.items():
        empty = {"task": task, "kind": kind} | {
            f"{name}_{way}": None if name == "wire" else 0
            for name in LAYERS
            for way in ("up", "down")
        }
        rows.setdefault((task, kind), empty)[f"{layer}_{direction}"] = size
    report = {"run": number, "rows": list(rows.values()), "refusals": refusals}
    _print(report)
    return report


def _print(report: dict[str, Any]) -> None:
    table = Table(title=f"Run {report['run']}: bytes of all clients")
    columns = [f"{layer} {way}" for layer in LAYERS for way in ("up", "down")]
    table.add_column("task")
    table.add_column("kind")
    for name in columns:
        table.add_column(name, justify="right")
    for row in report["rows"]:
        sizes = [row[name.replace(" ", "_")] for name in columns]
        cells = ["-" if size is None else f"{size:,}" for size in sizes]
        table.add_row(row["task"] or "(none)", row["kind"], *cells)
    console = stdout()
    console.print(table)
    refused = ", ".join(f"{reason} {count}" for reason, count in report["refusals"].items())
    console.print(f"refused: {refused or 'none'}", highlight=False)
