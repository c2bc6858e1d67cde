"""Orders of tasks, and training together against alone, of what the study of tasks measured.

``python -m experiments.studies.tasks_compare rows.jsonl`` prints a table of orders where the rows
have more than one, and one of images a client where they have rows that trained alone.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from experiments.studies.one_line import in_one_line
from experiments.studies.tasks_entries import Where, rows_in
from recast_core.task_spec import parse_tasks

ALONE = "alone, "
Row = Mapping[str, Any]


def mean_of(row: Row) -> float:
    """Over the row's tasks."""
    return fmean(task["accuracy"] for task in row["tasks"].values())


def first_of(row: Row) -> str:
    """The task that was learned first: order k begins with the k-th, the first of all for 0."""
    return parse_tasks(row["sequence"])[row["order"]].name


def forward_transfer(rows: Sequence[Row]) -> float | None:
    """What a task has more for being learned after others: accuracy then less that as the first.

    ``None`` where no task of a seed was both.
    """
    seen: defaultdict[tuple[int, str], tuple[list[float], list[float]]]
    seen = defaultdict(lambda: ([], []))
    for row in rows:
        for name, task in row["tasks"].items():
            seen[row["seed"], name][name == first_of(row)].append(task["accuracy"])
    gains = [fmean(later) - fmean(first) for later, first in seen.values() if later and first]
    return fmean(gains) if gains else None


def order_table(rows: Sequence[Row]) -> list[str]:
    """Markdown: average accuracy of each order, and what one task does to another."""
    by: defaultdict[str, list[Row]] = defaultdict(list)
    for row in rows:
        by[row["row"]].append(row)
    orders = sorted({row["order"] for row in rows})
    heads = " | ".join(f"order {order + 1}" for order in orders)
    lines = [
        f"| method | {heads} | between orders | between seeds | forgetting | forward transfer |",
        "|---|" + "--:|" * (len(orders) + 4),
    ]
    for name, told in by.items():
        means = [
            fmean(mean_of(row) for row in told if row["order"] == order)
            for order in orders
            if any(row["order"] == order for row in told)
        ]
        if len(means) < len(orders):
            continue
        seeds = [
            fmean(mean_of(row) for row in told if row["seed"] == seed)
            for seed in sorted({row["seed"] for row in told})
        ]
        gain = forward_transfer(told)
        each = " | ".join(f"{100 * mean:.1f}" for mean in means)
        lines.append(
            f"| {name} | {each} | {100 * (max(means) - min(means)):.1f} "
            f"| {100 * (max(seeds) - min(seeds)):.1f} "
            f"| {100 * max(row['forgetting'] for row in told):.1f} "
            f"| {'' if gain is None else f'{100 * gain:+.1f}'} |"
        )
    return lines


def pays_table(found: Mapping[Where, Sequence[Row]]) -> list[str]:
    """Markdown: every method that was also trained alone, by clients and images of each."""
    lines = [
        "| clients | images each | method | together | alone | together gains | seeds |",
        "|--:|--:|---|--:|--:|--:|--:|",
    ]
    for where, rows in found.items():
        by: defaultdict[str, dict[int, float]] = defaultdict(dict)
        for row in rows:
            if not row["order"]:
                by[row["row"]][row["seed"]] = mean_of(row)
        each = where.images // where.clients
        for name, together in by.items():
            alone = by.get(ALONE + name)
            place = f"| {where.clients} | {each} | {name}"
            if alone is not None:
                gains = [100 * (together[seed] - alone[seed]) for seed in together.keys() & alone]
                lines.append(
                    f"{place} | {100 * fmean(together.values()):.1f} "
                    f"| {100 * fmean(alone.values()):.1f} | {fmean(gains):+.1f} "
                    f"| {min(gains):+.1f} to {max(gains):+.1f} |"
                )
            elif not name.startswith(ALONE):
                lines.append(f"{place} | {100 * fmean(together.values()):.1f} | | | |")
    return lines


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments.studies.tasks_compare",
        description=(__doc__ or "").split("\n")[0],
    )
    parser.add_argument("rows", type=Path, nargs="+")
    options = parser.parse_args(arguments)
    found = rows_in(options.rows)
    for where, rows in found.items():
        if any(row["order"] for row in rows):
            print("\n".join([f"### {where.title}", "", *order_table(rows), ""]))
    if any(row["row"].startswith(ALONE) for rows in found.values() for row in rows):
        print("\n".join(pays_table(found)))


if __name__ == "__main__":
    in_one_line(main)
