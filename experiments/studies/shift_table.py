"""Tables, a plot and results for machines from the rows of the study of shifts.

``python -m experiments.studies.shift_table ROWS.jsonl … --page shifts.md --plot shifts.svg`` also
adds its rows to ``--results``, in the place of those that the study left there before.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import fmean

from experiments.report.results import Result, load_results, save_results
from experiments.studies.one_line import in_one_line
from experiments.studies.shift_book import Row
from experiments.studies.shift_contenders import (
    BY_NAME,
    COEFFICIENTS,
    CONTENDERS,
    DEPLOYED,
    FEW,
    FULL,
    LOCAL_HEAD,
    STATISTICS,
)
from experiments.studies.shift_plot import Dot, draw
from recast_core.files import write_atomically

STUDY = "shifts"
_CENTRAL = "centralised, everything"
_COMPARED = (COEFFICIENTS, FULL, "norm affine")
LABELS = (-1, 1024, 256, 64, 0)
KINDS = {
    "accuracy": "As clients of the product answer",
    "mixed": "The deployed classifier with the label mix",
    "plain": "The deployed classifier alone",
}
Cell = tuple[str, str, str]
Group = dict[tuple[str, int], list[Row]]


def read(paths: Iterable[Path]) -> dict[Cell, Group]:
    """Rows with an accuracy, by network, data and shift, then by contender and labels."""
    found: dict[Cell, Group] = {}
    for path in paths:
        for line in path.read_text("utf-8").splitlines():
            row: Row = json.loads(line)
            if "accuracy" in row:
                cell = found.setdefault((row["network"], row["data"], row["shift"]), {})
                cell.setdefault((row["contender"], row["labels"]), []).append(row)
    return found


def mean(rows: Sequence[Row]) -> float:
    """Mean accuracy."""
    return fmean(row["accuracy"] for row in rows)


def free(group: Group, labels: int = -1) -> float:
    """The better of the network as it came and of what its clients make of it without a byte.

    With so many labels where that was measured, else with all.
    """
    answered = (STATISTICS, labels) if (STATISTICS, labels) in group else (STATISTICS, -1)
    return max(mean(group[key]) for key in ((DEPLOYED, -1), answered) if key in group)


def share(group: Group, name: str, labels: int) -> float | None:
    """What part of centralised full fine-tuning's gain over ``free`` a contender has."""
    if (name, labels) not in group or (_CENTRAL, -1) not in group:
        return None
    gain = mean(group[_CENTRAL, -1]) - free(group, labels)
    return (mean(group[name, labels]) - free(group, labels)) / gain if gain > 0 else None


def results(cells: dict[Cell, Group]) -> list[Result]:
    """As ``docs/results/README.md`` says; without what is trained in one place or alone.

    Nor the deployed network as it came, which is within ``zero_byte_accuracy``. A label budget of a
    cell that was not finished is left out, and a method that sends something and that not all
    finished cells of its network have: methods would be compared over different cells.
    """
    made = []
    for (network, data, shift), group in cells.items():
        for (name, labels), rows in group.items():
            by, first = BY_NAME[name], rows[0]
            if by.central or by.alone or by.server or name == DEPLOYED:
                continue
            whole = finished(cells, network, labels)
            everywhere = all((name, labels) in other for other in whole)
            if group not in whole or not (everywhere or by.free):
                continue
            unsent = [
                mean(group[each.name, labels])
                for each in CONTENDERS
                if (each.alone or each.name == LOCAL_HEAD) and (each.name, labels) in group
            ]
            head = "local" if name == LOCAL_HEAD else "backbone"
            statistics = "recompute" if first["kind"] == "batch-norm" else "frozen"
            accuracies = [row["accuracy"] for row in rows]
            target = "attn+mlp" if first["kind"] == "layer-norm" else "conv"
            made.append(
                Result(
                    STUDY, network, first["kind"], first["parameters"], f"npz:{data}.npz+{shift}",
                    first["clients"], labels, by.method.format(target), by.bank, head,
                    first["bits"], first["numbers"], first["update_bytes"], len(rows),
                    round(mean(rows), 5), min(accuracies), max(accuracies),
                    round(max([free(group, labels), *unsent]), 5),
                    first["family"], statistics,
                )
            )  # fmt: skip
    return made


def table(cells: dict[Cell, Group], network: str) -> list[str]:
    """A Markdown table of a network: a column for each cell, accuracies in percent."""
    own = {cell: group for cell, group in cells.items() if cell[0] == network}
    lines = [
        "| labels | | an update | " + " | ".join(f"{c[1]} {c[2]}" for c in own) + " |",
        "|--:|---|--:|" + "--:|" * len(own),
    ]
    seen = {key for group in own.values() for key in group}
    for labels in LABELS:
        for contender in CONTENDERS:
            if (contender.name, labels) not in seen:
                continue
            texts, size = [], 0
            for group in own.values():
                rows = group.get((contender.name, labels))
                texts.append(_text(group, contender.name, labels) if rows else "")
                size = max([size, *(row["update_bytes"] for row in rows or ())])
            told = {-1: "all"}.get(labels, f"{labels:,}")
            name = f"**{contender.name}**" if contender.name == COEFFICIENTS else contender.name
            lines.append(f"| {told} | {name} | {size:,} B | " + " | ".join(texts) + " |")
    return lines


def _text(group: Group, name: str, labels: int) -> str:
    rows = group[name, labels]
    accuracies = [100 * row["accuracy"] for row in rows]
    text = f"{fmean(accuracies):.1f}"
    if len(rows) > 1:
        text += f" ± {(max(accuracies) - min(accuracies)) / 2:.1f}"
    part = share(group, name, labels)
    told = part is not None and name not in (DEPLOYED, STATISTICS, _CENTRAL)
    return f"{text} ({100 * part:.0f} %)" if told and part is not None else text


def finished(cells: dict[Cell, Group], network: str, labels: int) -> list[Group]:
    """The cells of a network that have every compared contender with so many labels."""
    return [
        group
        for (where, *_), group in cells.items()
        if where == network and all((name, labels) in group for name in _COMPARED)
    ]


def summary(cells: dict[Cell, Group], kind: str) -> list[str]:
    """Means over finished cells, of one of the accuracies of a row, as a Markdown table.

    A contender has a column where all finished cells of some network and label budget have it.
    """
    networks = dict.fromkeys(cell[0] for cell in cells)
    groups = {
        (network, labels): finished(cells, network, labels)
        for network in networks
        for labels in LABELS
    }
    shown = {key: group for key, group in groups.items() if group}
    names = [
        each.name
        for each in CONTENDERS
        if any(_mean(each.name, labels, group, kind) for (_, labels), group in shown.items())
    ]
    lines = [
        "| network | labels | cells | " + " | ".join(names) + " |",
        "|---|--:|--:|" + "--:|" * len(names),
    ]
    for (network, labels), group in shown.items():
        texts = [_mean(name, labels, group, kind) for name in names]
        told = {-1: "all"}.get(labels, f"{labels:,}")
        lines.append(f"| {network} | {told} | {len(group)} | " + " | ".join(texts) + " |")
    return lines


def _mean(name: str, labels: int, groups: Sequence[Group], kind: str) -> str:
    """Of a contender over all ``groups``; empty where one lacks it."""
    by = -1 if name == DEPLOYED or BY_NAME[name].central else labels
    rows = [group.get((name, by), []) for group in groups]
    if not all(rows) or not all(kind in row for each in rows for row in each):
        return ""
    return f"{100 * fmean(fmean(row[kind] for row in each) for each in rows):.1f}"


def dots(cells: dict[Cell, Group]) -> list[Dot]:
    """For each network and contender that all its finished cells have: all labels, and few."""
    found = []
    for network in dict.fromkeys(cell[0] for cell in cells):
        for labels in (-1, min(FEW)):
            groups = finished(cells, network, labels)
            for contender in CONTENDERS:
                key = contender.name, labels
                if contender.central or contender.name == DEPLOYED:
                    continue
                if not groups or not all(key in group for group in groups):
                    continue
                gains = [100 * (mean(group[key]) - free(group, labels)) for group in groups]
                spread, few = (min(gains), max(gains)), labels != -1
                sent = groups[0][key][0]["up"]
                found.append(Dot(network, contender.name, sent, fmean(gains), spread, few))
    return found


def main(argv: Sequence[str] | None = None) -> None:
    """Make the tables."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments.studies.shift_table",
        description=(__doc__ or "").partition("\n")[0],
    )
    parser.add_argument("rows", type=Path, nargs="+", help="of experiments.studies.shifts")
    parser.add_argument("--page", type=Path, help="Markdown tables go here; else to the terminal")
    parser.add_argument("--plot", type=Path, help="an SVG file")
    parser.add_argument("--results", type=Path, help="results.json")
    args = parser.parse_args(argv)
    cells = read(args.rows)
    lines: list[str] = []
    for network in dict.fromkeys(cell[0] for cell in cells):
        lines += [f"### {network}", "", *table(cells, network), ""]
    for kind, told in KINDS.items():
        lines += [f"### {told}", "", *summary(cells, kind), ""]
    if args.page:
        write_atomically(args.page, ("\n".join(lines).rstrip() + "\n").encode())
    else:
        print("\n".join(lines))
    if args.plot:
        write_atomically(args.plot, draw(dots(cells)).encode())
    if args.results:
        others = load_results(args.results) if args.results.exists() else ()
        kept = [row for row in others if row.study != STUDY]
        save_results(args.results, [*kept, *results(cells)])


if __name__ == "__main__":
    in_one_line(main)
