"""What hostile clients do to a run under each aggregation rule.

``python -m experiments.studies.attacks --rows attacks.jsonl`` made the tables of docs/security.md;
it goes on where it stopped. The server is the product's own; its clients are simulated, and the
first k of them attack in every round.
"""

from __future__ import annotations

import argparse
import json
import logging
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any

import torch

from client.data import load_dataset, parse_task
from client.learners import attached_to
from experiments.engines.probe import probe_of
from experiments.studies.hostile import ATTACKS, TARGET, HostileGrid, stamp
from recast_core.bank import TemplateBank
from recast_core.errors import RecastError
from recast_core.learner import BankLearner
from recast_core.settings import Settings
from server.app import Conditions, RunResult, run_federation
from server.exchange.observer import LogObserver
from server.flower import server_identity
from server.record.registry import Registry

TASK = "motion=digits[70%:]+motion:4"
# Images of the server's own, which no client has.
PROBE = "motion=digits[:20%]+motion:4"
RULES = (
    "clipped",
    "clipped+probe",
    "mean",
    "median",
    "trimmed",
    "geometric-median",
    "krum",
    "multi-krum",
)
CLIENTS = 10


@dataclass(frozen=True)
class Cell:
    """One run of the study."""

    rule: str
    attack: str
    hostile: int
    seed: int


def cells(
    rules: Sequence[str], attacks: Sequence[str], counts: Sequence[int], seeds: Sequence[int]
) -> Iterator[Cell]:
    """All runs, those of the first rules first; without an attack nobody is hostile."""
    for seed in seeds:
        for rule in rules:
            for attack in attacks:
                for count in counts if attack != "none" else (0,):
                    yield Cell(rule, attack, count, seed)


def run(cell: Cell, settings: Settings) -> dict[str, Any]:
    """What a run of ``cell`` comes to: its accuracies, and how it ended."""
    rule, _, probed = cell.rule.partition("+")
    settings = replace(
        settings, aggregation=rule, seed=cell.seed, probe=PROBE if probed else "none"
    )
    row: dict[str, Any] = asdict(cell) | {"head": settings.head_kind}
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="recast-") as folder, server_identity():
        grid = HostileGrid(CLIENTS, settings, ATTACKS[cell.attack], cell.hostile)
        try:
            found = run_federation(
                grid,
                replace(settings, run_dir=folder),
                Path(folder),
                LogObserver(),
                extra={"clients": CLIENTS},
                conditions=Conditions(patience=0.0, probe_of=partial(probe_of, own=False)),
            )
            row |= {"end": "finished"} | _measured(found, settings, cell.attack)
            row["right"] = [grid.right.get(number, (0, 0)) for number in range(CLIENTS)]
        except RecastError as error:
            row["end"] = str(error)[:120]
    return row | {"seconds": round(time.monotonic() - began, 1)}


def _measured(found: RunResult, settings: Settings, attack: str) -> dict[str, Any]:
    with Registry(found.registry) as registry:
        last = registry.accuracies(found.run)[-1]
        vector = registry.coefficients(found.run, 1)
        refused = len(registry.refusals(found.run))
        row = {
            "reported": last.accuracy,
            "median": registry.medians(found.run)[last.id],
            "refused": refused,
        }
    if attack != "backdoor":
        return row
    assert isinstance(found.start, TemplateBank)
    model = BankLearner(*attached_to(settings, found.start))
    data = load_dataset(parse_task(settings.tasks), model.preprocess.size)
    stamped = torch.from_numpy(data.x_test[data.y_test != TARGET].copy())
    stamp(stamped)
    by = torch.from_numpy(data.x_train) if settings.recomputes else None
    said = model.head(model.features(stamped, vector, by)).argmax(1)
    return row | {"backdoor": float((said == TARGET).double().mean())}


def show(rows: Sequence[dict[str, Any]]) -> None:
    """A table in Markdown: what honest clients lose in points, by attack and number of liars."""
    rules = [rule for rule in RULES if any(row["rule"] == rule for row in rows)]
    calm = {rule: _of(rows, rule, "none", 0) for rule in rules}
    print("| attack | k |", " | ".join(rules), "|")
    print("|---|---|" + "---|" * len(rules))
    first = [f"{100 * fmean(honest(row, 0) for row in calm[rule]):.1f}" for rule in rules]
    print("| none: accuracy | 0 |", " | ".join(first), "|")
    kinds = dict.fromkeys((row["attack"], row["hostile"]) for row in rows if row["hostile"])
    for attack, count in sorted(kinds, key=lambda kind: (list(ATTACKS).index(kind[0]), kind[1])):
        entries = [_entry(_of(rows, rule, attack, count), calm[rule]) for rule in rules]
        print(f"| {attack} | {count} |", " | ".join(entries), "|")
    for rule in rules:
        _show_spread([row for row in rows if row["rule"] == rule], rule)


def _show_spread(rows: Sequence[dict[str, Any]], rule: str) -> None:
    """A rule's losses in points: the mean over seeds, the least and the most.

    Against the same run in which nobody attacks, and against that in which the k clients send
    nothing that can be used, which is what any rule loses that leaves them out.
    """
    print(f"\n| attack under {rule} | k | seeds | against no attack | against k absent |")
    print("|---|---|---|---|---|")
    calm = _of(rows, rule, "none", 0)
    kinds = dict.fromkeys((row["attack"], row["hostile"]) for row in rows if row["hostile"])
    for attack, count in sorted(kinds, key=lambda kind: (list(ATTACKS).index(kind[0]), kind[1])):
        found = _of(rows, rule, attack, count)
        entries = [_spread(_lost(found, than)) for than in (calm, _of(rows, rule, "absent", count))]
        print(f"| {attack} | {count} | {len(found)} |", " | ".join(entries), "|")


def _spread(lost: Sequence[float]) -> str:
    if len(lost) < 2:
        return "".join(f"{one:+.1f}" for one in lost)
    return f"{fmean(lost):+.1f} ({min(lost):+.1f} to {max(lost):+.1f})"


def _of(rows: Sequence[dict[str, Any]], *which: object) -> list[dict[str, Any]]:
    names = ("rule", "attack", "hostile")
    return [row for row in rows if tuple(row[name] for name in names) == which]


def _entry(rows: Sequence[dict[str, Any]], calm: Sequence[dict[str, Any]]) -> str:
    """What honest clients lose, in points, of seeds that have a run without an attack."""
    ended = [row for row in rows if row["end"] != "finished"]
    if ended:
        return f"ended {len(ended)} of {len(rows)}"
    lost = _lost(rows, calm)
    return f"{fmean(lost):+.1f}" if lost else ""


def _lost(rows: Sequence[dict[str, Any]], than: Sequence[dict[str, Any]]) -> list[float]:
    """Points, of the honest clients alone, of finished runs of seeds that both have."""
    before = {row["seed"]: row for row in than if row["end"] == "finished"}
    return [
        100 * (honest(row, row["hostile"]) - honest(before[row["seed"]], row["hostile"]))
        for row in rows
        if row["end"] == "finished" and row["seed"] in before
    ]


def honest(row: dict[str, Any], hostile: int) -> float:
    """The accuracy over the test images of all clients but the first ``hostile``."""
    kept = row["right"][hostile:]
    return float(sum(right for right, _ in kept) / sum(of for _, of in kept))


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments.studies.attacks", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--rules", nargs="+", default=list(RULES))
    usual = [name for name, attack in ATTACKS.items() if attack.head is None]
    parser.add_argument("--attacks", nargs="+", choices=list(ATTACKS), default=usual)
    parser.add_argument("--hostile", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--task", default=TASK)
    parser.add_argument("--head", default=Settings.head, help="of the task; one file of rows each")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--rows", type=Path, default=Path("attacks.jsonl"))
    parser.add_argument("--quick", action="store_true", help="the default rule, two rounds in all")
    options = parser.parse_args(arguments)
    for name in ("recast", "flwr"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    settings = Settings(
        tasks=options.task,
        rounds=options.rounds,
        epochs=options.epochs,
        device="cpu",
        head=options.head,
    )
    if options.quick:
        options.rules, options.seeds, options.hostile = ["clipped"], [0], [1]
        options.attacks, settings = ["none", "huge"], replace(settings, rounds=1, epochs=1)
    wanted = list(cells(options.rules, options.attacks, options.hostile, options.seeds))
    kept = [json.loads(line) for line in _lines(options.rows)]
    done = {tuple(row[name] for name in ("rule", "attack", "hostile", "seed")) for row in kept}
    for cell in wanted:
        if (cell.rule, cell.attack, cell.hostile, cell.seed) in done:
            continue
        row = run(cell, settings)
        kept.append(row)
        with options.rows.open("a") as file:
            file.write(json.dumps(row) + "\n")
    show(kept)


def _lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


if __name__ == "__main__":
    main()
