"""What the study of tasks measured, row by row: means over seeds, and what nothing beats."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

from recast_core.task_spec import parse_tasks


@dataclass(frozen=True)
class Entry:
    """A row of the table: means over seeds.

    Attributes:
        name: of the row, and of its bank's file where it has one.
        row: of the row.
        accuracy: by task.
        specs: each task in the task grammar.
        seeds: mean over tasks of each seed.
        numbers: in an update.
        update_bytes: of one serialised update, the longest.
        up: of one client over a whole task, serialised.
        down: likewise.
        forgetting: the largest change of an earlier task's accuracy.
        seconds: of a run.
    """

    name: str
    row: str
    accuracy: dict[str, list[float]]
    specs: dict[str, str]
    seeds: list[float]
    numbers: int
    update_bytes: int
    up: float
    down: float
    forgetting: float
    seconds: float

    @property
    def mean(self) -> float:
        """Over all."""
        return fmean(self.seeds)


class Where(NamedTuple):
    """What rows must have in common to be compared.

    Attributes:
        backbone: its name.
        clients: how many.
        images: of a task that train, at most.
        terms: rounds, passes, batch, partition, test images and tasks, in words.
    """

    backbone: str
    clients: int
    images: int
    terms: str

    @property
    def title(self) -> str:
        """For people."""
        return f"{self.backbone}, {self.clients} clients, {self.images} images a task"


_TERMS = ("rounds", "epochs", "batch", "partition", "tests", "factors", "sequence")


def rows_in(paths: Sequence[Path]) -> dict[Where, list[dict[str, Any]]]:
    """Every measured row of the files, by what rows must have in common."""
    found: defaultdict[Where, list[dict[str, Any]]] = defaultdict(list)
    for path in paths:
        for told in path.read_text("utf-8").splitlines():
            row = json.loads(told)
            if "row" in row:
                terms = ", ".join(f"{name} {row.get(name)}" for name in _TERMS)
                found[Where(row["backbone"], row["clients"], row["images"], terms)].append(row)
    return dict(found)


def read(paths: Sequence[Path]) -> dict[Where, list[Entry]]:
    """Rows of the first order by what they have in common, those that send least first."""
    found: dict[Where, defaultdict[str, list[Any]]] = {}
    for where, rows in rows_in(paths).items():
        found[where] = defaultdict(list)
        for row in rows:
            if not row.get("order"):
                found[where][_named(row)].append(row)
    return {
        where: sorted((_entry(*pair) for pair in rows.items()), key=_order)
        for where, rows in found.items()
    }


def _entry(name: str, rows: Sequence[Any]) -> Entry:
    accuracy: defaultdict[str, list[float]] = defaultdict(list)
    for row in rows:
        for task, told in row["tasks"].items():
            accuracy[task].append(told["accuracy"])
    every = [task for row in rows for task in row["tasks"].values()]
    return Entry(
        name,
        rows[0]["row"],
        dict(accuracy),
        _specs(rows[0].get("sequence", "")),
        [fmean(task["accuracy"] for task in row["tasks"].values()) for row in rows],
        max(task["numbers"] for task in every),
        max(task["update_bytes"] for task in every),
        fmean(task["up"] for task in every),
        fmean(task["down"] for task in every),
        max(row["forgetting"] for row in rows),
        fmean(row["seconds"] for row in rows),
    )


def _named(row: Mapping[str, Any]) -> str:
    return f"{row['row']} ({row['bank']})" if "bank" in row else str(row["row"])


def _specs(sequence: str) -> dict[str, str]:
    return {spec.name: str(spec) for spec in parse_tasks(sequence)} if sequence else {}


def _order(entry: Entry) -> tuple[int, float]:
    return entry.update_bytes, entry.mean


def best_free(entries: Sequence[Entry]) -> Entry:
    """The best of what sends nothing."""
    return max((e for e in entries if not e.update_bytes), key=lambda entry: entry.mean)


def frontier(entries: Sequence[Entry]) -> list[Entry]:
    """Those that nothing beats with as few bytes, fewest first."""
    kept: list[Entry] = []
    for entry in sorted(entries, key=lambda e: (e.update_bytes, -e.mean)):
        if not kept or entry.mean > kept[-1].mean:
            kept.append(entry)
    return kept
