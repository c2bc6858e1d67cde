"""Accuracy by the width of an update's numbers, and how rounding and error feedback change it.

``python -m experiments.studies.bits --bank bank.safetensors`` repeats one federation for each
width, way of rounding and seed. What differs between rows is the codec alone; test images choose
nothing.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from rich.table import Table

from experiments.command.console import stdout
from experiments.studies.one_line import in_one_line
from experiments.studies.trial import tasks_of, trial
from recast_core.files import write_atomically
from recast_core.settings import Settings

WIDTHS = (8, 5, 4, 3, 2, 1)
CODECS: dict[str, dict[str, Any]] = {
    "nearest": {},
    "nearest, error feedback": {"error_feedback": True},
    "stochastic, error feedback": {"rounding": "stochastic", "error_feedback": True},
}


def rows(
    base: dict[str, Any],
    clients: int,
    seeds: Sequence[int],
    widths: Sequence[int] = WIDTHS,
    codecs: Sequence[str] = tuple(CODECS),
) -> list[dict[str, Any]]:
    """A row for each width and codec: accuracy less that of float32 by task and seed, in points."""
    exact = [_accuracies(base | {"bits": 32, "seed": seed}, clients) for seed in seeds]
    found = [{"bits": 32, "codec": "float32", "change": _nothing(exact), "accuracy": _mean(exact)}]
    for bits in widths:
        for codec in codecs:
            runs = [
                _accuracies(base | CODECS[codec] | {"bits": bits, "seed": seed}, clients)
                for seed in seeds
            ]
            change = {
                task: [
                    run[task] - reference[task] for run, reference in zip(runs, exact, strict=True)
                ]
                for task in exact[0]
            }
            found.append({"bits": bits, "codec": codec, "change": change, "accuracy": _mean(runs)})
            print(_line(found[-1]), flush=True)
    return found


def _accuracies(values: dict[str, Any], clients: int) -> dict[str, float]:
    report = trial(Settings.from_mapping(values), clients)
    return {name: 100 * task["accuracy"] for name, task in tasks_of(report).items()}


def _mean(runs: Sequence[dict[str, float]]) -> dict[str, float]:
    return {task: fmean(run[task] for run in runs) for task in runs[0]}


def _nothing(runs: Sequence[dict[str, float]]) -> dict[str, list[float]]:
    return {task: [0.0] * len(runs) for task in runs[0]}


def _spread(values: Sequence[float]) -> str:
    return f"{fmean(values):+.1f} ({min(values):+.1f} to {max(values):+.1f})"


def _line(row: dict[str, Any]) -> str:
    tasks = ", ".join(f"{task} {_spread(change)}" for task, change in row["change"].items())
    return f"{row['bits']} bits, {row['codec']}: {tasks}"


def show(found: Sequence[dict[str, Any]]) -> None:
    """Print the table."""
    table = Table(title="Points of accuracy beside float32: mean over seeds, lowest and highest")
    tasks = list(found[0]["accuracy"])
    for name in ("bits", "codec", *tasks):
        table.add_column(name, justify="left" if name == "codec" else "right")
    for row in found:
        cells = [_spread(row["change"][task]) for task in tasks]
        if row["bits"] == 32:
            cells = [f"{row['accuracy'][task]:.1f} %" for task in tasks]
        table.add_row(str(row["bits"]), row["codec"], *cells)
    stdout().print(table)


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments.studies.bits", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--tasks", default="digits+inverted digits+rotated")
    parser.add_argument("--bank", default="", help="as studies.task_vector_banks makes one")
    parser.add_argument("--clients", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--widths", type=int, nargs="+", default=WIDTHS)
    parser.add_argument("--codecs", nargs="+", choices=CODECS, default=list(CODECS))
    parser.add_argument("--json", type=Path)
    options = parser.parse_args(arguments)
    base = {"tasks": options.tasks, "bank": options.bank, "rounds": options.rounds}
    found = rows(base, options.clients, options.seeds, options.widths, options.codecs)
    show(found)
    if options.json:
        write_atomically(options.json, (json.dumps(found, indent=2) + "\n").encode())


if __name__ == "__main__":
    in_one_line(main)
