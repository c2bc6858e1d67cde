"""A run as JSON values, read from its registry."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from statistics import fmean
from typing import Any

from experiments.report.baselines import beside
from experiments.report.names import client_labels
from experiments.report.privacy import privacy
from recast_core.text import how_many
from server.app import RunResult
from server.record.air import account, air_of
from server.record.ledger import Ledger
from server.record.registry import Registry
from server.record.rows import OTHERS


def summarise(result: RunResult, engine: str, seed: int, seconds: float) -> dict[str, Any]:
    """What ``recast simulate --json`` writes: accuracies are fractions, bytes totals over clients.

    Args:
        result: of the run.
        engine: that carried its messages.
        seed: of the run.
        seconds: that it took.
    """
    start = result.start
    with Registry(result.registry) as registry:
        tasks = _tasks(registry, result)
        changes = _changes(registry, result.run)
        absent = _without_images(registry, result.run)
        private = privacy(registry, result.run)
        spent = [
            round_.seconds
            for task in registry.tasks(result.run)
            for round_ in registry.rounds(result.run, task.number)
        ]
        air = air_of(registry, result.run)
    beside: dict[str, Any] = {"without_images": absent} if absent else {}
    if air:
        beside["lorawan"] = account(air)
    if private is not None:
        beside["privacy"] = private
    return {
        "bank": {
            "sha256": start.sha256.hex(),
            "bytes": len(start.to_bytes()),
            "templates": start.template_count,
            "coefficients": start.sent,
        },
        "tasks": tasks,
        "forgetting": {"max_abs_change": max(changes, default=0.0)},
        "engine": engine,
        "seed": seed,
        "seconds": seconds,
        "round_seconds": fmean(spent) if spent else 0.0,
        **beside,
    }


def bank_sent(result: RunResult) -> str:
    """How many bytes of the run's bank were sent to whom, in words."""
    size = len(result.start.to_bytes())
    with Registry(result.registry) as registry:
        labels = client_labels(registry, result.run)
        sent: Counter[str] = Counter()
        for client, count in Ledger(registry).deliveries(result.run).items():
            sent[labels[client]] += count  # a client of Flower's has another id in each process
    if not sent:
        return "which no client had to be sent"
    again = sum(count > size for count in sent.values())
    everyone = len(set(labels.values()) - {OTHERS})
    who = (
        "all clients" if len(sent) == everyone else f"{len(sent)} of {how_many(everyone, 'client')}"
    )
    if OTHERS in labels:  # of whom nothing says how many they are
        who = how_many(len(sent), "client")
    often = f"{again} of them more than once" if again else "once"
    return f"{sent.total():,} B to {who}, {often}"


def _tasks(registry: Registry, result: RunResult) -> list[dict[str, Any]]:
    run, ledger = result.run, Ledger(registry)
    totals = ledger.totals(run, by=("task", "direction", "layer"))
    longest = ledger.longest_updates(run)
    kinds = ledger.totals(run, by=("task", "direction", "layer", "kind"))
    first: dict[int, Any] = {}
    for found in registry.accuracies(run):
        first.setdefault(found.task, found)
    baselines, medians = registry.baselines(run), registry.medians(run)
    tasks = []
    for task in registry.tasks(run):
        rounds, accuracy = registry.rounds(run, task.number), first.get(task.number)
        tasks.append(
            {
                "name": task.name,
                "classes": task.classes,
                "clients": max((entry.clients for entry in rounds), default=0),
                "rounds": len(rounds),
                "coefficients": result.start.sent,
                "accuracy": accuracy.accuracy if accuracy else None,
                "median_accuracy": medians.get(accuracy.id) if accuracy else None,
                "head_only_accuracy": accuracy.head_only_accuracy if accuracy else None,
                "update_bytes": longest.get(task.name, 0),
                **{
                    f"{layer}_bytes_{direction}": totals.get((task.name, direction, layer), 0)
                    for layer in ("payload", "message")
                    for direction in ("up", "down")
                },
                **hiding_bytes(kinds, task.name),
                **beside(baselines.get(task.number, {})),
            }
        )
    return tasks


def hiding_bytes(kinds: Mapping[tuple[str | int | None, ...], int], task: str) -> dict[str, int]:
    """What of a task's messages only hides its updates; nothing where the server hid none.

    What came up does not tell: a client may send shares that nobody asked for.
    """
    if (task, "down", "message", "shares") not in kinds:
        return {}
    return {
        f"hiding_bytes_{direction}": sum(
            kinds.get((task, direction, "message", kind), 0) for kind in ("keys", "shares")
        )
        for direction in ("up", "down")
    }


def _without_images(registry: Registry, run: int) -> dict[str, int]:
    """How many clients have no training images of a task, where there are any."""
    clients: defaultdict[str, set[str]] = defaultdict(set)
    others: Counter[str] = Counter()
    for refusal in registry.refusals(run):
        if refusal.reason == "no-data" and refusal.task is not None:
            if refusal.client == OTHERS:
                others[refusal.task] += refusal.times
            else:
                clients[refusal.task].add(refusal.client)
    return {task: len(found) + others[task] for task, found in clients.items()}


def _changes(registry: Registry, run: int) -> list[float]:
    """How far each later accuracy of a task is from its first."""
    first: dict[int, float] = {}
    return [
        abs(found.accuracy - first.setdefault(found.task, found.accuracy))
        for found in registry.accuracies(run)
    ]
