"""``recast runs``: the runs under a folder, what is in them, side by side, and gone."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from statistics import fmean
from typing import Any

import click
from rich.table import Table

from experiments.command.console import size_text, stdout
from experiments.report.data import report_data
from experiments.report.repetition import settings_that_differ
from recast_core.errors import RecastError
from server.record.history import History
from server.record.lock import is_held
from server.record.place import POINTER, REGISTRY, is_there, place_of, registries
from server.record.registry import Registry
from server.record.removing import forget

RUNS = Path("runs")
# What a run's folder holds; anything else in it is somebody else's, and stays.
_OURS = (
    "registry.sqlite*", POINTER, "bank-*.safetensors", "server.lock", "report.html", "farewell",
    "clients.json", "sampling.secret",
)  # fmt: skip


def list_runs(folder: Path) -> dict[str, Any]:
    """Print the runs under a folder, oldest first, and return them.

    Raises:
        RecastError: no such folder, or a registry that cannot be read.
    """
    rows: list[dict[str, Any]] = []
    for path in _folders(folder):
        try:
            rows += _rows(path)
        except RecastError as error:
            if not place_of(path / REGISTRY).url:
                raise
            click.echo(f"{path}: {error}", err=True)  # a database is away, the others are here
    rows.sort(key=lambda row: str(row["started"]))
    table = Table(box=None, pad_edge=False)
    for name in ("folder", "run", "status", "started", "tasks", "rounds", "accuracy", "on disk"):
        right = name in ("run", "rounds", "accuracy", "on disk")
        table.add_column(name, justify="right" if right else "left", overflow="fold")
    for row in rows:
        table.add_row(
            row["folder"], str(row["run"]), row["status"], _moment(row["started"]),
            _names(row["tasks"]), str(row["rounds"]), _percent(row["accuracy"]),
            size_text(row["bytes"]),
        )  # fmt: skip
    said = f"no runs here ({folder}): `recast simulate` makes one"
    stdout().print(table if rows else said, highlight=False, markup=False)
    return {"runs": rows}


def show_run(run: Path, number: int | None) -> dict[str, Any]:
    """Print what a run learned, what it cost and which settings it changed; return the numbers."""
    data = _data(run, number)
    about, console = data["run"], stdout()
    status = _status(about["status"], run if run.is_dir() else run.parent)
    line = f"{about['name']}, run {about['id']} ({about['runs']} there): {status}"
    started = _moment(about["started"])
    console.print(f"{line}, started {started}", highlight=False, markup=False)
    console.print(about["command"], highlight=False, markup=False, soft_wrap=True)
    settings = data["settings"].items()
    changed = {name: entry["value"] for name, entry in settings if entry["changed"]}
    told = ", ".join(f"{name} {value}" for name, value in changed.items())
    console.print(f"settings: {told or 'all at their defaults'}", highlight=False, markup=False)
    console.print(_side_by_side([data]), highlight=False, markup=False)
    return data


def compare_runs(runs: Sequence[Path]) -> dict[str, Any]:
    """Print runs side by side and return what they report.

    Raises:
        RecastError: fewer than two, or one that is none.
    """
    if len(runs) < 2:
        raise RecastError("one run alone compares with nothing: name at least two")
    data = [_data(run, None) for run in runs]
    differing = settings_that_differ(data)
    console = stdout()
    table = Table(box=None, pad_edge=False)
    table.add_column("setting", overflow="fold")
    for one in data:
        table.add_column(one["run"]["name"], overflow="fold")
    for name, values in differing.items():
        table.add_row(name, *map(str, values))
    console.print(table if differing else "their settings are the same", markup=False)
    console.print(_side_by_side(data), highlight=False, markup=False)
    return {"runs": data, "settings": differing}


def remove_run(run: Path, confirm: Callable[[str], bool]) -> dict[str, Any]:
    """Delete a run's folder once somebody has confirmed it; what is not recast's stays.

    Raises:
        RecastError: no run's folder, a server at work in it, a link, or nobody confirmed.
    """
    if run.is_symlink() or not is_there(run / REGISTRY):
        raise RecastError(f"{run} is no run's folder: name one that `recast runs list` shows")
    if is_held(run):
        raise RecastError(f"a server is at work in {run}: stop it first")
    with History(run / REGISTRY) as history:
        count = len(history.runs())
    size = _size(run)
    if not confirm(f"Remove {run}: {count} run(s), {size / 1e6:.1f} MB, for good?"):
        raise RecastError(f"{run} stays: confirm, or give --yes where nobody can be asked")
    with Registry(run / REGISTRY) as registry:
        forget(registry)
    for pattern in _OURS:
        for path in run.glob(pattern):
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    left = sorted(path.name for path in run.iterdir())
    if not left:
        run.rmdir()
    said = f" but for what is not recast's: {', '.join(left)}" if left else ""
    click.echo(f"removed {run}{said}", err=True)
    return {"removed": str(run), "bytes": size, "left": left}


def _side_by_side(data: Sequence[dict[str, Any]]) -> Table:
    table = Table(box=None, pad_edge=False)
    for name in ("run", "task", "accuracy", "without", "update", "all up", "all down", "rounds"):
        left = name in ("run", "task")
        table.add_column(name, justify="left" if left else "right", overflow="fold")
    for one in data:
        moved = _by_task(one)
        for task in one["tasks"]:
            without = task.get("zero_byte_accuracy", task["head_only_accuracy"])
            table.add_row(
                one["run"]["name"], task["name"], _percent(task["accuracy"]), _percent(without),
                f"{task['update_bytes'] or 0:,} B",
                f"{moved.get((task['name'], 'up'), 0):,} B",
                f"{moved.get((task['name'], 'down'), 0):,} B", str(task["rounds"]),
            )  # fmt: skip
    return table


def _by_task(data: dict[str, Any]) -> dict[tuple[str, str], int]:
    """Message bytes of all clients by task and direction."""
    sums: dict[tuple[str, str], int] = {}
    for row in data["bytes"]:
        if row["layer"] == "message" and row["task"] is not None:
            key = (row["task"], row["direction"])
            sums[key] = sums.get(key, 0) + row["bytes"]
    return sums


def _rows(path: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    with History(path / REGISTRY) as history:
        for run in history.runs():
            names = {task.number: task.name for task in history.tasks(run.id)}
            found = {item.task: item.accuracy for item in history.accuracies(run.id)}
            rows.append(
                {
                    "folder": str(path),
                    "run": run.id,
                    "status": _status(run.status, path),
                    "started": run.started,
                    "tasks": [*names.values()],
                    "rounds": sum(history.last_rounds(run.id).values()),
                    "accuracy": fmean(found.values()) if found else None,
                    "bytes": _size(path),
                }
            )
    return rows


def _data(run: Path, number: int | None) -> dict[str, Any]:
    path = run / REGISTRY if run.is_dir() else run
    if not is_there(path):
        raise RecastError(f"no run in {run}: name a folder that `recast runs list` shows")
    return report_data(path, number)


def _folders(folder: Path) -> list[Path]:
    if is_there(folder / REGISTRY):
        return [folder]
    if not folder.is_dir():
        if folder == RUNS:  # where runs go unless told otherwise; none has been made yet
            return []
        raise RecastError(f"no folder {folder}: name one that holds runs")
    return sorted(path.parent for path in registries(folder))


def _status(status: str, folder: Path) -> str:
    """A run that is recorded as running where no server is at work was killed."""
    return "interrupted" if status == "running" and not is_held(folder) else status


def _size(folder: Path) -> int:
    """In bytes; files of a run that is going on come and go meanwhile."""
    found = 0
    for place, _, names in os.walk(folder):
        for name in names:
            with suppress(FileNotFoundError):
                found += Path(place, name).stat().st_size
    return found


def _names(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _moment(text: str) -> str:
    return text[:16].replace("T", " ")


def _percent(fraction: float | None) -> str:
    return "-" if fraction is None else f"{100 * fraction:.1f} %"
