"""Accuracy against bytes: the same tasks learned by every method, through the same federation.

``python -m experiments.studies.comparison --json compare.json`` trains each row with its own
customary rate, the same clients, rounds and seeds; heads that travel are counted. Bytes are those
of one client: serialised messages of the method, without the report's own (the head-only baseline)
and without the bank. ``recast report --compare compare.json`` plots them.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from rich.table import Table

from experiments.command.console import stdout
from experiments.studies.one_line import in_one_line
from experiments.studies.trial import tasks_of, trial
from recast_core.errors import RecastError
from recast_core.files import write_atomically
from recast_core.setting_values import Value
from recast_core.settings import Settings

Row = dict[str, Any]


def variants(bank: str, target: str) -> dict[str, dict[str, Value]]:
    """The rows by name, and how their settings differ."""
    lora = f"lora:{{}}:{target}"
    rows: dict[str, dict[str, Value]] = {
        "head only, local": {"method": "head-only"},
        "prototypes only": {"method": "head-only", "head": "means"},
        "RECAST, own weights": {},
        "RECAST, own weights, 4 bits": {"bits": 4, "error-feedback": True},
        "RECAST, own weights, prototypes": {"head": "means"},
        "norm affine": {"method": "norm-affine"},
        "norm affine, 1 bit": {"method": "norm-affine", "bits": 1, "error-feedback": True},
        "LoRA r1": {"method": lora.format(1)},
        "LoRA r4": {"method": lora.format(4)},
        "full (FedAvg)": {"method": "full"},
    }
    if bank:
        rows["RECAST, task vectors"] = {"bank": bank}
    return rows


def compare(
    base: Mapping[str, Value],
    names: Mapping[str, Mapping[str, Value]],
    clients: int,
    seeds: Sequence[int],
) -> list[Row]:
    """Run every row with every seed: one row for each method and task.

    Raises:
        RecastError: settings that cannot run.
    """
    found: list[Row] = []
    for name, changed in names.items():
        reports = [
            trial(Settings.from_mapping({**base, **changed, "seed": seed}), clients)
            for seed in seeds
        ]
        for task in tasks_of(reports[0]):
            found.append(_row(name, task, [tasks_of(report)[task] for report in reports]))
            print(_line(found[-1]), flush=True)
    return found


def _row(name: str, task: str, runs: Sequence[Mapping[str, Any]]) -> Row:
    accuracies = [run["accuracy"] for run in runs]
    sizes = {
        f"{layer}_{way}": fmean(run[f"method_{layer}_{way}"] for run in runs)
        for layer in ("payload", "message")
        for way in ("up", "down")
    }
    return {
        "method": name,
        "transport": "simulated",
        "task": task,
        "rounds": max(1, runs[0]["rounds"]),
        "sent": runs[0]["coefficients"],
        "accuracy": fmean(accuracies),
        "lowest": min(accuracies),
        "highest": max(accuracies),
        **sizes,
        "wire_up": None,
        "wire_down": None,
    }


def _line(row: Row) -> str:
    return (
        f"{row['method']}, {row['task']}: {100 * row['accuracy']:.1f} % "
        f"({100 * row['lowest']:.1f}-{100 * row['highest']:.1f}), "
        f"{row['message_up']:,.0f} B up, {row['message_down']:,.0f} B down"
    )


def show(rows: Sequence[Row]) -> None:
    """Print a table for each task, the fewest bytes first."""
    for task in dict.fromkeys(row["task"] for row in rows):
        table = Table(title=f"{task}: accuracy against bytes of one client")
        for name in ("method", "numbers", "accuracy", "lowest-highest", "up", "down"):
            table.add_column(name, justify="left" if name == "method" else "right")
        own = [row for row in rows if row["task"] == task]
        for row in sorted(own, key=lambda row: row["message_up"] + row["message_down"]):
            table.add_row(
                row["method"],
                f"{row['sent']:,}",
                f"{100 * row['accuracy']:.1f} %",
                f"{100 * row['lowest']:.1f}-{100 * row['highest']:.1f}",
                f"{row['message_up']:,.0f} B",
                f"{row['message_down']:,.0f} B",
            )
        stdout().print(table)


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments.studies.comparison", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--backbone", default="glyph_resnet20")
    parser.add_argument("--target", default="conv")
    parser.add_argument("--tasks", default="digits@5-9+inverted digits@5-9+rotated")
    parser.add_argument("--bank", default="", help="as studies.task_vector_banks makes one")
    parser.add_argument("--clients", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--only", nargs="+", help="names of rows")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args(arguments)
    names = variants(options.bank, options.target)
    if options.only:
        missing = set(options.only) - names.keys()
        if missing:
            raise RecastError(f"no row {', '.join(missing)}: choose from {', '.join(names)}")
        names = {name: names[name] for name in options.only}
    base: dict[str, Value] = {
        "backbone": options.backbone,
        "target": options.target,
        "tasks": options.tasks,
        "rounds": options.rounds,
    }
    found = compare(base, names, options.clients, options.seeds)
    show(found)
    if options.json:
        write_atomically(options.json, (json.dumps({"rows": found}, indent=2) + "\n").encode())


if __name__ == "__main__":
    in_one_line(main)
