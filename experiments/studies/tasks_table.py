"""Tables, plot and results of the study of tasks, of the order in which they were given.

``python -m experiments.studies.tasks_table rows.jsonl --plot frontier.svg --results results.json``
Gains are points over the best row that sends nothing: a local head, or training alone.
"""

from __future__ import annotations

import argparse
import json
import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

from experiments.report.results import (
    ALL_LABELS,
    Result,
    kind_of,
    load_results,
    parameters_of,
    save_results,
)
from experiments.studies.svg import dot, line, opened, text
from experiments.studies.tasks_rows import BY_NAME
from recast_core.backbones import load_backbone
from recast_core.files import write_atomically
from recast_core.task_spec import parse_tasks

STUDY = "tasks"
_EVERYTHING = "everything (FedAvg)"
_WIDTH, _HEIGHT = 720, 440
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 150, 20, 52


@dataclass(frozen=True)
class Entry:
    """A row of the table: means over seeds.

    Attributes:
        name: of the row.
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


_TERMS = ("rounds", "epochs", "batch", "partition", "tests", "sequence")


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
                found[where][row["row"]].append(row)
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


def table(entries: Sequence[Entry]) -> list[str]:
    """Markdown: one line for each row."""
    free, whole = best_free(entries), {e.name: e for e in entries}.get(_EVERYTHING)
    tasks = list(entries[0].accuracy)
    on = {entry.name for entry in frontier(entries)}
    lines = [
        f"| method | numbers | update | task, up | task, down | {' | '.join(tasks)} | mean "
        "| seeds | gain | of everything's |",
        "|---|" + "--:|" * (8 + len(tasks)),
    ]
    for entry in entries:
        gain = entry.mean - free.mean
        part = ""
        if whole is not None and whole.mean > free.mean:
            part = f"{100 * gain / (whole.mean - free.mean):.0f} %"
        each = " | ".join(f"{100 * fmean(entry.accuracy[task]):.1f}" for task in tasks)
        name = f"**{entry.name}**" if entry.name in on else entry.name
        lines.append(
            f"| {name} | {entry.numbers:,} | {entry.update_bytes:,} B | {entry.up:,.0f} B "
            f"| {entry.down:,.0f} B | {each} | {100 * entry.mean:.1f} "
            f"| {100 * min(entry.seeds):.1f}-{100 * max(entry.seeds):.1f} | {100 * gain:+.1f} "
            f"| {part} |"
        )
    return lines


def results(backbone: str, clients: int, entries: Sequence[Entry]) -> list[Result]:
    """Rows for ``recast plan --budget``."""
    loaded = load_backbone(backbone, weights=False)
    parameters = parameters_of(loaded.model, loaded.head)
    free = best_free(entries)
    found = []
    for entry in entries:
        row = BY_NAME[entry.name]
        if row.alone:
            continue
        for task, seen in entry.accuracy.items():
            found.append(
                Result(
                    STUDY, Path(backbone).stem, kind_of(loaded.model), parameters,
                    entry.specs[task], clients,
                    ALL_LABELS, row.method.format("conv"), row.bank, row.head,
                    row.bits, entry.numbers, entry.update_bytes, len(seen), round(fmean(seen), 5),
                    round(min(seen), 5), round(max(seen), 5), round(fmean(free.accuracy[task]), 5),
                )
            )  # fmt: skip
    return found


def draw(entries: Sequence[Entry], title: str) -> str:
    """Accuracy against the bytes of an update, the frontier as a line: SVG."""
    sending = [entry for entry in entries if entry.update_bytes]
    free = best_free(entries)
    low = math.floor(min(e.mean for e in entries) * 20) / 20
    high = math.ceil(max(e.mean for e in entries) * 20) / 20
    decades = math.log10(max(e.update_bytes for e in sending)) - 1

    def place(entry: Entry) -> tuple[float, float]:
        across = (math.log10(entry.update_bytes) - 1) / decades
        return _LEFT + across * (_WIDTH - _LEFT - _RIGHT), up(entry.mean)

    def up(accuracy: float) -> float:
        return _TOP + (high - accuracy) / (high - low) * (_HEIGHT - _TOP - _BOTTOM)

    parts = opened(_WIDTH, _HEIGHT, title)
    for tick in range(round(low * 20), round(high * 20) + 1):
        y = up(tick / 20)
        parts += [
            line((_LEFT, y), (_WIDTH - _RIGHT, y), "#ddd"),
            text(_LEFT - 8, y + 4, f"{5 * tick} %", "end"),
        ]
    for decade in range(1, 2 + math.floor(decades)):
        x = _LEFT + (decade - 1) / decades * (_WIDTH - _LEFT - _RIGHT)
        parts.append(text(x, _HEIGHT - _BOTTOM + 18, f"10^{decade} B", "middle"))
    parts.append(text(_WIDTH / 2, _HEIGHT - 10, "bytes of one update", "middle"))
    y = up(free.mean)
    parts.append(line((_LEFT, y), (_WIDTH - _RIGHT, y), "#c2410c"))
    parts.append(text(_WIDTH - _RIGHT + 6, y + 4, f"{free.name}: 0 B", "start"))
    best = [entry for entry in frontier(entries) if entry.update_bytes]
    places = [place(entry) for entry in best]
    parts += [line(a, b, "#0b6e99") for a, b in pairwise(places)]
    for entry in sending:
        x, y = place(entry)
        on = entry in best
        ends = up(min(entry.seeds)), up(max(entry.seeds))
        colour = "#0b6e99" if on else "#999"
        parts += [line((x, ends[0]), (x, ends[1]), colour), dot((x, y), colour, 4 if on else 3)]
        if on:
            parts.append(text(x + 7, y - 5, entry.name, "start"))
    return "\n".join([*parts, "</svg>"]) + "\n"


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments.studies.tasks_table",
        description=(__doc__ or "").split("\n")[0],
    )
    parser.add_argument("rows", type=Path, nargs="+")
    parser.add_argument("--page", type=Path, help="Markdown tables go here; else to the terminal")
    parser.add_argument("--plot", type=Path, help="an SVG file of the first backbone")
    parser.add_argument("--results", type=Path, help="results.json, whose other studies are kept")
    parser.add_argument("--backbone", help="as the study had it, for --results")
    options = parser.parse_args(arguments)
    found = read(options.rows)
    lines: list[str] = []
    for where, entries in found.items():
        lines += [f"### {where.title}", "", *table(entries), ""]
        if options.plot:
            write_atomically(options.plot, draw(entries, where.title).encode())
            options.plot = None
        if options.results and options.backbone:
            others = load_results(options.results) if options.results.exists() else ()
            kept = [row for row in others if row.study != STUDY]
            save_results(
                options.results, [*kept, *results(options.backbone, where.clients, entries)]
            )
    page = "\n".join(lines).rstrip() + "\n"
    if options.page:
        write_atomically(options.page, page.encode())
    else:
        print(page, end="")


if __name__ == "__main__":
    main()
