"""One federation for an experiment: nothing printed, nothing kept."""

from __future__ import annotations

import logging
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from flwr.serverapp import Grid

from experiments.engines.folded import FoldedGrid
from experiments.report.summary import summarise
from recast_core.settings import Settings
from recast_core.start import Start
from recast_core.wire.codec import Vector
from server.app import Conditions, RunResult, run_federation
from server.exchange.observer import LogObserver
from server.flower import server_identity
from server.record.ledger import Key, Ledger
from server.record.registry import Registry


@contextmanager
def federation(
    settings: Settings,
    clients: int,
    grid: Grid | None = None,
    conditions: Conditions | None = None,
) -> Iterator[RunResult]:
    """A federation that has been run, in a folder that goes with the block.

    Args:
        settings: of the run, apart from its folder.
        clients: how many simulated ones.
        grid: of these; the folded engine where ``None``.
        conditions: of the server; it waits for nobody where ``None``.

    Raises:
        RecastError: settings that cannot run.
    """
    for name in ("recast", "flwr"):
        logging.getLogger(name).setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory(prefix="recast-") as folder, server_identity():
        yield run_federation(
            grid or FoldedGrid(clients, settings),
            replace(settings, run_dir=folder),
            Path(folder),
            LogObserver(),
            extra={"clients": clients},
            conditions=conditions or Conditions(patience=0.0),
        )


def learned(settings: Settings, clients: int) -> tuple[Start, Vector]:
    """Run a federation of simulated clients; its start, and the vector of its last task.

    Raises:
        RecastError: settings that cannot run.
    """
    with federation(settings, clients) as result, Registry(result.registry) as registry:
        last = registry.tasks(result.run)[-1].number
        return result.start, registry.coefficients(result.run, last)


def trial(settings: Settings, clients: int) -> dict[str, Any]:
    """Run a federation of simulated clients and return what ``recast simulate --json`` writes.

    Raises:
        RecastError: settings that cannot run.
    """
    with federation(settings, clients) as result:
        report = summarise(result, "folded", settings.seed, 0.0)
        with Registry(result.registry) as registry:
            for task in report["tasks"]:
                task |= _of_the_method(registry, result.run, task["name"])
    return report


def _of_the_method(registry: Registry, run: int, task: str) -> dict[str, float]:
    """One client's bytes that the method needs: coefficients and heads, not what reports need."""
    by: tuple[Key, ...] = ("task", "client", "direction", "kind", "layer")
    sums: Counter[str] = Counter()
    clients = set()
    for (name, client, way, kind, layer), size in Ledger(registry).totals(run, by=by).items():
        if name == task:
            clients.add(client)
            if kind in ("coefficients", "head"):
                sums[f"method_{layer}_{way}"] += size
    names = [f"method_{layer}_{way}" for layer in ("payload", "message") for way in ("up", "down")]
    return {name: sums[name] / max(len(clients), 1) for name in names}


def tasks_of(report: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The report's tasks by name."""
    return {task["name"]: task for task in report["tasks"]}
