"""Other methods' rows beside a run's own, for the plot of accuracy against bytes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from recast_core.errors import RecastError
from recast_core.files import read_text

Point = dict[str, Any]


def own_points(data: Mapping[str, Any], name: str = "this run") -> list[Point]:
    """A point for each task of the run that was evaluated: its update as a serialised message."""
    return [
        _point(
            name, task["name"], "message", task["update_bytes"], task["accuracy"],
            data["run"].get("transport"),
        )
        for task in data["tasks"]
        if task["accuracy"] is not None and task["update_bytes"]
    ]  # fmt: skip


def read_points(path: Path) -> list[Point]:
    """The points of a file of ``recast measure`` or ``experiments.studies.methods_alone``.

    A measured row gives what one client sent up, divided by the rounds: one point for its messages
    and another for the wire, where a wire was measured. A row of
    ``experiments.studies.methods_alone`` gives the bytes of one update in float32; its accuracy is
    in per cent.

    Raises:
        RecastError: the file cannot be read or is of neither kind.
    """
    try:
        content = json.loads(read_text(path))
    except OSError as error:
        raise RecastError(f"cannot read {path}: {error.strerror}; name a JSON file") from error
    except (ValueError, RecursionError) as error:
        raise RecastError(f"{path} is no JSON ({error}): write it again with --json") from error
    rows = content.get("rows") if isinstance(content, dict) else content
    if not isinstance(rows, list):
        raise RecastError(
            f"{path} holds no list of rows: give what `recast measure --json` or "
            "`python -m experiments.studies.methods_alone --json` wrote"
        )
    points: list[Point] = []
    for number, row in enumerate(rows, start=1):
        try:
            points += _measured(row) if "payload_up" in row else _method(row)
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise RecastError(
                f"row {number} of {path} does not read ({type(error).__name__}: {error}): give "
                "what `recast measure --json` or `experiments.studies.methods_alone --json` wrote"
            ) from error
    return points


def _measured(row: Mapping[str, Any]) -> list[Point]:
    rounds = int(row["rounds"])
    if rounds < 1:
        raise ValueError("rounds below 1")
    transport = str(row["transport"])
    return [
        _point(
            str(row["method"]), str(row["task"]), layer, row[f"{layer}_up"] / rounds,
            row["accuracy"], transport,
        )
        for layer in ("message", "wire")
        if row[f"{layer}_up"] is not None and row["accuracy"] is not None
    ]  # fmt: skip


def _method(row: Mapping[str, Any]) -> list[Point]:
    task = str(row.get("task", "one client"))
    return [_point(str(row["method"]), task, "payload", row["bytes"], row["accuracy"] / 100)]


def _point(
    method: str, task: str, layer: str, size: float, accuracy: float, transport: str | None = None
) -> Point:
    size, accuracy = float(size), float(accuracy)
    if not 0 <= size < float("inf"):
        raise ValueError(f"{size} bytes")
    if not 0 <= accuracy <= 1:
        raise ValueError(f"an accuracy of {accuracy}")
    return {
        "method": method,
        "task": task,
        "transport": transport,
        "layer": layer,
        "bytes": size,
        "accuracy": accuracy,
    }
