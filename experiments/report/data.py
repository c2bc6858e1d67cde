"""What a report says of a run, as JSON values read from its registry."""

from __future__ import annotations

from collections import Counter, defaultdict
from datetime import datetime
from pathlib import Path
from typing import Any

from sqlalchemy import distinct, func, select

from experiments.engines.radio import RADIOS
from experiments.report.baselines import beside
from experiments.report.losses import losses
from experiments.report.names import client_labels, transport_of
from experiments.report.privacy import privacy
from experiments.report.refusals import refused
from experiments.report.repetition import compared_with_defaults, reproduce
from recast_core.errors import RecastError
from server.record.air import account, air_of
from server.record.ledger import Ledger
from server.record.losses import latest_losses
from server.record.place import REGISTRY, changed, is_there, place_of, registries
from server.record.registry import Registry, Run
from server.record.tables import LedgerEntry

# The frames that a plot has room to mark.
MARKED = ("lorawan-dr0", "sms", "lorawan-dr5", "iridium-sbd")


def find_registry(run: Path | None) -> Path:
    """The registry's file of a run folder, of that very file, or of the newest folder in ``runs/``.

    Raises:
        RecastError: there is none.
    """
    if run is None:
        found = registries(Path("runs"))
        if not found:
            raise RecastError(f"no run under {Path('runs').absolute()}: name a run folder")
        return max(found, key=lambda path: (changed(path), path))
    path = run / REGISTRY if run.is_dir() else run
    if not is_there(path):
        raise RecastError(f"no registry at {path}: name a run folder, which holds {REGISTRY}")
    return path


def report_data(path: Path, run: int | None = None, *, read_only: bool = False) -> dict[str, Any]:
    """Everything that the report of a run shows.

    Accuracies are fractions, bytes totals, times seconds or ISO 8601 in UTC. What a registry does
    not hold is ``None``.

    Args:
        path: the registry's file.
        run: the run's id, the last one where ``None``.
        read_only: leave the file as it is, also one of an older schema.

    Raises:
        RecastError: the file is no registry, or has no such run.
    """
    with Registry(path, read_only=read_only) as registry:
        entry = _find(registry, run)
        tasks = _tasks(registry, entry)
        numbers = {task["number"]: task["name"] for task in tasks}
        matrix = registry.accuracy_matrix(entry.id)
        return {
            "run": _run(entry, path, len(registry.runs())),
            "bank": _bank(registry, entry, path.parent),
            "settings": compared_with_defaults(entry.config),
            "tasks": tasks,
            "accuracy": _accuracy(registry, entry.id, numbers),
            "loss": losses(registry, entry.id, numbers),
            "forgetting": {
                "max_abs_change": max((abs(task["change"] or 0.0) for task in tasks), default=0.0),
                "matrix": [[None if x != x else float(x) for x in row] for row in matrix],
            },
            "bytes": _bytes(registry, entry.id),
            "limits": [
                {"name": RADIOS[name].title, "bytes": RADIOS[name].frame} for name in MARKED
            ],
            "clients": _clients(registry, entry.id),
            "refusals": refused(registry.refusals(entry.id), client_labels(registry, entry.id)),
            "privacy": privacy(registry, entry.id),
            "lorawan": account(air) if (air := air_of(registry, entry.id)) else None,
        }


def _find(registry: Registry, run: int | None) -> Run:
    runs = registry.runs()
    if not runs:
        raise RecastError(f"{registry.path} holds no run: `recast simulate` makes one")
    if run is None:
        return runs[-1]
    for entry in runs:
        if entry.id == run:
            return entry
    raise RecastError(f"{registry.path} has no run {run}: it has 1 to {runs[-1].id}")


def _run(entry: Run, path: Path, runs: int) -> dict[str, Any]:
    seconds = None
    if entry.finished is not None:
        elapsed = datetime.fromisoformat(entry.finished) - datetime.fromisoformat(entry.started)
        seconds = elapsed.total_seconds()
    command, recorded = reproduce(entry.command, entry.config)
    return {
        "name": path.absolute().parent.name,
        "id": entry.id,
        "runs": runs,
        "status": entry.status,
        "started": entry.started,
        "finished": entry.finished,
        "seconds": seconds,
        "command": command,
        "command_recorded": recorded,
        "settings": entry.config,
        "seed": entry.config.get("seed"),
        "versions": entry.versions,
        "transport": transport_of(entry.command, entry.config),
        "registry": str(place_of(path)),
    }


def _bank(registry: Registry, entry: Run, folder: Path) -> dict[str, Any]:
    """The bank; its size is that of the file, or of what was sent if the file is gone."""
    digits = entry.bank_sha256.hex()
    file = folder / f"bank-{digits[:16]}.safetensors"
    size = file.stat().st_size if file.is_file() else None
    delivered = (
        select(func.max(LedgerEntry.bytes), func.count(distinct(LedgerEntry.client)))
        .where(LedgerEntry.run == entry.id, LedgerEntry.kind == "bank")
        .where(LedgerEntry.direction == "down", LedgerEntry.layer == "payload")
    )
    with registry.reading() as session:
        longest, clients = session.execute(delivered).one()
    coefficients = [
        registry.rounds(entry.id, task.number)[-1:] for task in registry.tasks(entry.id)[:1]
    ]
    counts = [rounds[0].count for rounds in coefficients if rounds]
    return {
        "sha256": digits,
        "bytes": longest if size is None else size,
        "coefficients": counts[0] if counts else None,
        "delivered_to": clients,
    }


def _tasks(registry: Registry, entry: Run) -> list[dict[str, Any]]:
    longest = Ledger(registry).longest_updates(entry.id)
    accuracies = registry.accuracies(entry.id)
    names = registry.class_lists(entry.id)
    baselines, medians = registry.baselines(entry.id), registry.medians(entry.id)
    held_back = Counter(row.task for row in registry.held_back(entry.id))
    found = []
    for task in registry.tasks(entry.id):
        rounds = registry.rounds(entry.id, task.number)
        if rounds:
            registry.coefficients(entry.id, task.number)  # raises where they are damaged
        own = [item for item in accuracies if item.task == task.number]
        first, last = (own[0], own[-1]) if own else (None, None)
        found.append(
            {
                "number": task.number,
                "name": task.name,
                "classes": task.classes,
                "class_names": list(names.get(task.number, ())),
                "examples": task.examples,
                "clients": task.clients,
                "rounds": len(rounds),
                "round_seconds": sum(r.seconds for r in rounds) / len(rounds) if rounds else None,
                "accuracy": first.accuracy if first else None,
                "median_accuracy": medians.get(first.id) if first else None,
                "held_back": held_back[task.number],
                "rewinds": [
                    {"from": row.before, "to": row.round, "asked": row.asked, "done": row.done}
                    for row in registry.rewinds(entry.id)
                    if row.task == task.number
                ],
                "head_only_accuracy": first.head_only_accuracy if first else None,
                "last_accuracy": last.accuracy if last else None,
                "change": last.accuracy - first.accuracy if first and last else None,
                "update_bytes": longest.get(task.name),
                **beside(baselines.get(task.number, {})),
            }
        )
    return found


def _accuracy(registry: Registry, run: int, names: dict[int, str]) -> list[dict[str, Any]]:
    """Every accuracy with ``run_round``, the number of rounds of the run that came before it.

    An evaluation after task b stands after b's last round. Rounds that were measured themselves
    (``kind`` round) stand where they were recorded; others are after learning, or again later.
    """
    recorded = sorted(
        (entry for task in names for entry in registry.rounds(run, task)),
        key=lambda entry: entry.id,
    )
    position = {(entry.task, entry.round): place for place, entry in enumerate(recorded, start=1)}
    last = {entry.task: place for place, entry in enumerate(recorded, start=1)}
    baselines = registry.baselines(run)
    points = [
        {
            "task": names[entry.task],
            "kind": "round",
            "run_round": position[entry.task, entry.round],
            "accuracy": entry.accuracy,
            "head_only_accuracy": None,
        }
        for entry in recorded
        if entry.accuracy is not None
    ]
    for item in registry.accuracies(run):
        learned = item.after_task == item.task
        points.append(
            {
                "task": names[item.task],
                "kind": "learned" if learned else "again",
                "run_round": last.get(item.after_task, 0),
                "accuracy": item.accuracy,
                "head_only_accuracy": item.head_only_accuracy,
                **(beside(baselines.get(item.task, {})) if learned else {}),
            }
        )
    return points


def _bytes(registry: Registry, run: int) -> list[dict[str, Any]]:
    totals = Ledger(registry).totals(run, by=("task", "direction", "kind", "layer"))
    return [
        dict(zip(("task", "direction", "kind", "layer"), key, strict=True)) | {"bytes": value}
        for key, value in totals.items()
    ]


def _clients(registry: Registry, run: int) -> list[dict[str, Any]]:
    """A row for each client that sent, was sent or was refused anything."""
    totals = Ledger(registry).totals(run, by=("client", "direction", "kind", "layer"))
    updates = (
        select(LedgerEntry.client, LedgerEntry.task, LedgerEntry.round)
        .where(LedgerEntry.run == run, LedgerEntry.direction == "up")
        .where(LedgerEntry.kind == "coefficients")
        .distinct()
    )
    with registry.reading() as session:
        taken = session.execute(updates).all()
    rounds = Counter(row.client for row in taken)
    tasks: defaultdict[str, set[str]] = defaultdict(set)
    for row in taken:
        if row.task is not None:
            tasks[row.client].add(row.task)
    left_out: Counter[str] = Counter()
    for refusal in registry.refusals(run):
        left_out[refusal.client] += refusal.times
    held_back = Counter(row.client for row in registry.held_back(run))
    images: dict[str, int] = {}
    for share in registry.shares(run):
        images[share.client] = images.get(share.client, 0) + share.train_examples
    sums: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for (client, direction, kind, layer), value in totals.items():
        name = "bank" if kind == "bank" else str(direction)
        sums[str(client)][f"{layer}_{name}"] += value
    labels, last = client_labels(registry, run), latest_losses(registry, run)
    return [
        {
            "client": client,
            "name": labels[client],
            "tasks": sorted(tasks[client]),
            "images": images.get(client),
            "rounds": rounds[client],
            "refusals": left_out[client],
            "held_back": held_back[client],
            "loss": last.get(client),
            **{
                name: sums[client].get(name)
                for layer in ("payload", "message", "wire")
                for name in (f"{layer}_up", f"{layer}_down", f"{layer}_bank")
            },
        }
        for client in sorted(
            sums.keys() | left_out.keys() | images.keys(), key=lambda name: (len(name), name)
        )
    ]
