"""Tables, plot and results of the study of tasks, of the order in which they were given.

``python -m experiments.studies.tasks_table rows.jsonl --plot frontier.svg --results results.json``
Gains are points over the best row that sends nothing: a local head, or training alone.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

from experiments.report.results import (
    ALL_LABELS,
    Result,
    kind_of,
    load_results,
    parameters_of,
    save_results,
)
from experiments.studies.one_line import in_one_line
from experiments.studies.tasks_entries import Entry, best_free, frontier, read
from experiments.studies.tasks_ladder import ladder, widths
from experiments.studies.tasks_plot import draw
from experiments.studies.tasks_rows import BY_NAME
from recast_core.backbones import load_backbone
from recast_core.files import write_atomically

STUDY = "tasks"
_EVERYTHING = "everything (FedAvg)"


def table(entries: Sequence[Entry]) -> list[str]:
    """Markdown: one line for each row."""
    free, whole = best_free(entries), {e.name: e for e in entries}.get(_EVERYTHING)
    tasks = list(entries[0].specs or entries[0].accuracy)
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
        row = BY_NAME[entry.row]
        if row.alone or row.statistics or row.bank not in ("", "own"):
            continue  # such a bank is in no package, and such a head is no setting
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
    measured: list[Result] = []
    for where, entries in found.items():
        lines += [f"### {where.title}", "", *ladder(entries), "", *table(entries), ""]
        lines += [*widths(entries), ""]
        if options.plot:
            write_atomically(options.plot, draw(entries, where.title).encode())
            options.plot = None
        if options.results and options.backbone:
            measured += results(options.backbone, where.clients, entries)
    if measured:
        others = load_results(options.results) if options.results.exists() else ()
        save_results(options.results, [*(r for r in others if r.study != STUDY), *measured])
    page = "\n".join(lines).rstrip() + "\n"
    if options.page:
        write_atomically(options.page, page.encode())
    else:
        print(page, end="")


if __name__ == "__main__":
    in_one_line(main)
