"""A run as JSON values, read from its registry."""

from __future__ import annotations

from statistics import fmean
from typing import Any

from recast_core.start import Start
from server.record.ledger import Ledger
from server.record.registry import Registry


def summarise(
    registry: Registry, run: int, bank: Start, engine: str, seed: int, seconds: float
) -> dict[str, Any]:
    """The report of ``recast simulate``; accuracies are fractions, bytes totals over clients."""
    ledger = Ledger(registry)
    totals = ledger.totals(run, by=("task", "direction", "layer"))
    longest = ledger.longest(run, kind="coefficients", direction="up")
    first: dict[int, Any] = {}
    changes = [0.0]
    for found in registry.accuracies(run):
        if found.task in first:
            changes.append(abs(found.accuracy - first[found.task].accuracy))
        first.setdefault(found.task, found)
    tasks = []
    seconds_of_rounds: list[float] = []
    for task in registry.tasks(run):
        rounds = registry.rounds(run, task.number)
        seconds_of_rounds += [entry.seconds for entry in rounds]
        accuracy = first.get(task.number)
        tasks.append(
            {
                "name": task.name,
                "classes": task.classes,
                "clients": max((entry.clients for entry in rounds), default=0),
                "rounds": len(rounds),
                "coefficients": bank.sent,
                "accuracy": accuracy.accuracy if accuracy else None,
                "head_only_accuracy": accuracy.head_only_accuracy if accuracy else None,
                "update_bytes": longest.get(task.name, 0),
                **{
                    f"{layer}_bytes_{direction}": totals.get((task.name, direction, layer), 0)
                    for layer in ("payload", "message")
                    for direction in ("up", "down")
                },
            }
        )
    return {
        "bank": {
            "sha256": bank.sha256.hex(),
            "bytes": len(bank.to_bytes()),
            "templates": bank.template_count,
            "coefficients": bank.sent,
        },
        "tasks": tasks,
        "forgetting": {"max_abs_change": max(changes)},
        "engine": engine,
        "seed": seed,
        "seconds": seconds,
        "round_seconds": fmean(seconds_of_rounds) if seconds_of_rounds else 0.0,
    }
