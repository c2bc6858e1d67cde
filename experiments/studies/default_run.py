"""The default run by other methods too: the packaged network, its bank, three shifts.

``python -m experiments.studies.default_run --rows default.jsonl`` runs what ``recast simulate``
runs if it is told nothing, by each method and with each seed, prints the accuracies, and goes on
where it stopped. With ``--results docs/results/results.json`` they become what ``recast plan
digits_resnet20 --budget`` answers from. Test images judge; rates are the product's own.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any

from experiments.report.results import (
    Result,
    kind_of,
    load_results,
    parameters_of,
    save_results,
)
from experiments.studies.one_line import in_one_line
from experiments.studies.trial import tasks_of, trial
from recast_core.backbones import load_backbone
from recast_core.settings import Settings
from recast_core.task_spec import parse_tasks
from server.prepare import OWN_BANK

STUDY = "default"
CLIENTS = 20
_BASE = Settings(device="cpu")
METHODS: Mapping[str, Settings] = {
    "shift bank": _BASE,
    "own weights, conv": replace(_BASE, bank=OWN_BANK, target="conv"),
    "norm groups 1": replace(_BASE, method="norm-groups:1"),
    "norm groups 4": replace(_BASE, method="norm-groups:4"),
    "TinyLoRA 12 x 4": replace(_BASE, method="tiny-lora:12:4"),
    "LoRA-XS 2": replace(_BASE, method="lora-xs:2"),
    "LoRA-XS 4": replace(_BASE, method="lora-xs:4"),
    "norm affine": replace(_BASE, method="norm-affine"),
    "everything": replace(_BASE, method="full", learning_rate=1e-3),
}
# What sends nothing: its name among a run's baselines, and as results have it.
_FREE = {"statistics": ("backbone", "recompute"), "local head": ("local", "frozen")}


def run(method: str, seed: int, tasks: str, clients: int, rounds: int) -> dict[str, Any]:
    """One row: what each task came to.

    Raises:
        RecastError: settings that cannot run.
    """
    settings = replace(METHODS[method], seed=seed, tasks=tasks, rounds=rounds)
    report = tasks_of(trial(settings, clients))
    kept = ("accuracy", "zero_byte_accuracy", "baselines", "update_bytes", "coefficients")
    found = {name: {key: task[key] for key in kept} for name, task in report.items()}
    return {
        "method": method, "seed": seed, "specs": tasks, "clients": clients, "rounds": rounds,
        "tasks": found,
    }  # fmt: skip


@dataclass(frozen=True)
class Cell:
    """One task of the rows, over the seeds that every method has."""

    spec: str
    by_method: Mapping[str, Sequence[Mapping[str, Any]]]

    @property
    def free(self) -> float:
        """Of the best that sends nothing, the mean over seeds."""
        return fmean(one["zero_byte_accuracy"] for one in next(iter(self.by_method.values())))


def cells(rows: Sequence[Mapping[str, Any]]) -> Iterator[Cell]:
    """Those of all tasks, in order; only seeds of which all methods have a run count."""
    methods = list(dict.fromkeys(row["method"] for row in rows))
    seeds = [{row["seed"] for row in rows if row["method"] == method} for method in methods]
    common = sorted(set.intersection(*seeds)) if seeds else []
    of = {(row["method"], row["seed"]): row["tasks"] for row in rows}
    for spec in parse_tasks(rows[0]["specs"]) if common else []:
        yield Cell(str(spec), {m: [of[m, s][spec.name] for s in common] for m in methods})


def results(rows: Sequence[Mapping[str, Any]]) -> list[Result]:
    """What ``recast plan --budget`` reads.

    Raises:
        RecastError: no such backbone.
    """
    loaded = load_backbone(_BASE.backbone)
    kind, parameters = kind_of(loaded.model), parameters_of(loaded.model, loaded.head)
    found = []
    for cell in cells(rows):
        base = Result(
            study=STUDY, backbone=_BASE.backbone, kind=kind, parameters=parameters, task=cell.spec,
            clients=rows[0]["clients"], labels=_BASE.labels, method="head-only", bank="",
            head="backbone", bits=8, numbers=0, update_bytes=0,
            seeds=len(next(iter(cell.by_method.values()))), accuracy=0.0, lowest=0.0, highest=0.0,
            zero_byte_accuracy=round(cell.free, 5), statistics="recompute",
        )  # fmt: skip
        some = next(iter(cell.by_method.values()))
        for name, (head, statistics) in _FREE.items():
            free = _over([one["baselines"][name] for one in some])
            found.append(replace(base, head=head, statistics=statistics, **free))
        for method, each in cell.by_method.items():
            settings, numbers = METHODS[method], each[0]["coefficients"]
            bank = "shifts" if settings is _BASE else "own"
            found.append(
                replace(
                    base,
                    method=settings.canonical_method(),
                    bank=bank if settings.method == "recast" else "",
                    bits=settings.width(numbers),
                    numbers=numbers,
                    update_bytes=max(one["update_bytes"] for one in each),
                    **_over([one["accuracy"] for one in each]),
                )
            )
    return found


def _over(seeds: Sequence[float]) -> dict[str, Any]:
    low, mean, high = min(seeds), fmean(seeds), max(seeds)
    return {"lowest": round(low, 5), "accuracy": round(mean, 5), "highest": round(high, 5)}


def show(rows: Sequence[Mapping[str, Any]]) -> None:
    """A table in Markdown: means over seeds, the lowest and the highest."""
    found = list(cells(rows))
    if not found:
        return
    print("| method | an update |", " | ".join(cell.spec for cell in found), "| mean gain |")
    print("|---|--:|" + "--:|" * (len(found) + 1))
    free = [[one["zero_byte_accuracy"] for one in next(iter(c.by_method.values()))] for c in found]
    print("| best zero-byte | 0 B |", " | ".join(map(_told, free)), "| |")
    for method in found[0].by_method:
        each = [cell.by_method[method] for cell in found]
        right = [[one["accuracy"] for one in runs] for runs in each]
        size = max(one["update_bytes"] for runs in each for one in runs)
        gain = 100 * fmean(fmean(a) - fmean(b) for a, b in zip(right, free, strict=True))
        print(f"| {method} | {size:,} B |", " | ".join(map(_told, right)), f"| {gain:+.1f} |")


def _told(seeds: Sequence[float]) -> str:
    low, mean, high = (100 * value for value in (min(seeds), fmean(seeds), max(seeds)))
    return f"{mean:.1f} ({low:.1f}-{high:.1f})"


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments.studies.default_run",
        description=(__doc__ or "").split("\n")[0],
    )
    parser.add_argument("--methods", nargs="+", choices=list(METHODS), default=list(METHODS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--tasks", default=_BASE.tasks)
    parser.add_argument("--clients", type=int, default=CLIENTS)
    parser.add_argument("--rounds", type=int, default=_BASE.rounds)
    parser.add_argument("--rows", type=Path, default=Path("default.jsonl"))
    parser.add_argument("--results", type=Path, help="results.json, whose other studies are kept")
    options = parser.parse_args(arguments)
    lines = options.rows.read_text().splitlines() if options.rows.exists() else []
    about = {"specs": options.tasks, "clients": options.clients, "rounds": options.rounds}
    rows = [row for row in map(json.loads, lines) if about.items() <= row.items()]
    done = {(row["method"], row["seed"]) for row in rows}
    for seed in options.seeds:
        for method in options.methods:
            if (method, seed) not in done:
                rows.append(run(method, seed, options.tasks, options.clients, options.rounds))
                with options.rows.open("a") as file:
                    file.write(json.dumps(rows[-1]) + "\n")
    wanted = [
        row for row in rows if row["method"] in options.methods and row["seed"] in options.seeds
    ]
    show(wanted)
    if options.results:
        others = load_results(options.results) if options.results.exists() else ()
        kept = [row for row in others if row.study != STUDY]
        save_results(options.results, [*kept, *results(wanted)])


if __name__ == "__main__":
    in_one_line(main)
