"""``recast simulate``: the whole federation in this process, or on Flower's simulation."""

from __future__ import annotations

import difflib
import logging
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from flwr.serverapp import Grid

from client.app import app as client_app
from client.data import load_dataset, parse_scheme, parse_tasks, partition
from client.learners import pick_device
from experiments.command.console import ProgressObserver, close
from experiments.engines.fleet import Fleet
from experiments.engines.fleet_grid import FleetGrid
from experiments.engines.folded import FoldedGrid, FoldedOptions
from experiments.engines.local import LocalGrid
from experiments.engines.ray import run_on_ray
from experiments.engines.sequential import SequentialGrid
from experiments.report.summary import summarise
from recast_core.backbones import load_backbone
from recast_core.errors import RecastError
from recast_core.settings import Settings
from recast_core.task_spec import TaskSpec
from server.app import RunResult, run_federation, run_folder
from server.flower import server_identity

ENGINES = ("folded", "sequential", "ray")


def simulate(
    settings: Settings,
    clients: int,
    engine: str,
    fleet: Fleet | None = None,
    *,
    bf16: bool = False,
    compiled: bool = False,
) -> dict[str, Any]:
    """Run the federation, print its closing table and return its report.

    Args:
        settings: of the run.
        clients: how many.
        engine: one of ``ENGINES``.
        fleet: what befalls the clients; ``None`` for nothing.
        bf16: products of the folded engine in bfloat16.
        compiled: ``torch.compile`` its model.

    Raises:
        RecastError: settings that cannot run. Finished rounds stay in the registry.
    """
    if clients < 1:
        raise RecastError(f"{clients} clients: give at least 1")
    if engine not in ENGINES:
        near = difflib.get_close_matches(engine, ENGINES, n=1)
        hint = f" (did you mean {near[0]}?)" if near else ""
        raise RecastError(f"unknown engine {engine!r}: choose {' or '.join(ENGINES)}{hint}")
    if fleet is not None and engine == "ray":
        raise RecastError("a fleet on engine ray: use --engine folded or sequential")
    if (bf16 or compiled) and engine != "folded":
        raise RecastError(f"--bf16 and --compile on engine {engine}: use --engine folded")
    options = FoldedOptions(half=bf16, compiled=compiled)
    tasks = parse_tasks(settings.tasks)
    parse_scheme(settings.partition)
    pick_device(settings.device)
    backbone = load_backbone(settings.backbone)
    for task in tasks:
        _check_data(task, backbone.preprocess.size, clients, settings)
    logging.getLogger("flwr").setLevel(logging.ERROR)
    logging.getLogger("recast.client").setLevel(logging.ERROR)
    folder = run_folder(settings)
    began = time.monotonic()
    wrapped: list[FleetGrid] = []

    def within(grid: LocalGrid) -> LocalGrid:
        if fleet is None:
            return grid
        wrapped.append(FleetGrid(grid, fleet, settings.seed, settings.epochs))
        return wrapped[0]

    with ProgressObserver(len(tasks)) as observer:

        def federation(grid: Grid) -> RunResult:
            return run_federation(
                grid,
                settings,
                folder,
                observer,
                extra={
                    "clients": clients,
                    "bf16": bf16 or None,
                    "compile": compiled or None,
                    "fleet": asdict(fleet) if fleet else None,
                },
                patience=0.0,
            )

        if engine == "ray":
            result = run_on_ray(federation, client_app, clients, settings)
        elif engine == "folded":
            with server_identity():
                result = federation(
                    within(FoldedGrid(clients, settings, observer.answered, options))
                )
        else:
            with (
                tempfile.TemporaryDirectory(prefix="recast-") as caches,
                server_identity(),
            ):
                result = federation(
                    within(
                        SequentialGrid(
                            clients, client_app, settings, Path(caches), observer.answered
                        )
                    )
                )
    report = summarise(result, engine, settings.seed, time.monotonic() - began)
    if wrapped:
        report["fleet"] = wrapped[0].report()
    close(report, result, settings.backbone)
    return report


def _check_data(task: TaskSpec, size: int, clients: int, settings: Settings) -> None:
    """Find out before anything is written what every client would find out for itself."""
    data = load_dataset(task, size, skip_unreadable=settings.skip_unreadable)
    if len(np.unique(data.y_train)) < 2:
        raise RecastError(f"task {task} has images of one class only: name at least two classes")
    run = settings
    partition(data, 0, clients, scheme=run.partition, seed=run.seed, labels=run.labels)
