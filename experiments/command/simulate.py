"""``recast simulate``: the whole federation in this process, or on Flower's simulation."""

from __future__ import annotations

import difflib
import logging
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from flwr.serverapp import Grid

from client.app import app as client_app
from client.data import known_classes, load_dataset, parse_scheme, parse_tasks, partition
from client.learners import pick_device
from experiments.command.console import ProgressObserver, print_closing
from experiments.engines.fleet import Fleet
from experiments.engines.fleet_grid import FleetGrid
from experiments.engines.folded import FoldedGrid, FoldedOptions
from experiments.engines.local import LocalGrid
from experiments.engines.ray import check_ray, run_on_ray
from experiments.engines.sequential import SequentialGrid
from experiments.report.summary import summarise
from recast_core.backbones import load_backbone
from recast_core.errors import RecastError
from recast_core.settings import Settings
from server.app import Conditions, RunResult, run_federation, run_folder
from server.flower import server_identity
from server.record.resume import DATA

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
    _check_engine(engine, clients, fleet, fast=bf16 or compiled)
    digests = _check_data(settings, clients)
    for name in ("flwr", "recast.client"):
        logging.getLogger(name).setLevel(logging.ERROR)
    extra = {
        "clients": clients,
        "bf16": bf16 or None,
        "compile": compiled or None,
        "fleet": asdict(fleet) if fleet else None,
        DATA: digests,
    }
    began = time.monotonic()
    around: FleetGrid | None = None
    with ProgressObserver(len(digests)) as observer:

        def federation(grid: Grid) -> RunResult:
            return run_federation(
                grid,
                settings,
                run_folder(settings),
                observer,
                extra=extra,
                conditions=Conditions(patience=0.0, classes_of=known_classes),
            )

        if engine == "ray":
            result = run_on_ray(federation, client_app, clients, settings)
        else:
            options = FoldedOptions(half=bf16, compiled=compiled)
            with _grid(settings, clients, engine, observer.answered, options) as grid:
                if fleet is not None:
                    around = FleetGrid(grid, fleet, settings.seed, settings.epochs)
                result = federation(around or grid)
    report = summarise(result, engine, settings.seed, time.monotonic() - began)
    if around is not None:
        report["fleet"] = around.report()
    print_closing(report, result, settings.backbone)
    return report


@contextmanager
def _grid(
    settings: Settings,
    clients: int,
    engine: str,
    answered: Callable[[], None],
    options: FoldedOptions,
) -> Iterator[LocalGrid]:
    """The grid of an engine in this process."""
    with ExitStack() as stack:
        stack.enter_context(server_identity())
        if engine == "folded":
            yield FoldedGrid(clients, settings, answered, options)
        else:
            caches = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="recast-")))
            yield SequentialGrid(clients, client_app, settings, caches, answered)


def _check_engine(engine: str, clients: int, fleet: Fleet | None, *, fast: bool) -> None:
    if clients < 1:
        raise RecastError(f"{clients} clients: give at least 1")
    if engine not in ENGINES:
        near = difflib.get_close_matches(engine, ENGINES, n=1)
        hint = f" (did you mean {near[0]}?)" if near else ""
        raise RecastError(f"unknown engine {engine!r}: choose {' or '.join(ENGINES)}{hint}")
    if engine == "ray":
        check_ray()
    if fleet is not None and engine == "ray":
        raise RecastError("a fleet on engine ray: use --engine folded or sequential")
    if fast and engine != "folded":
        raise RecastError(f"--bf16 and --compile on engine {engine}: use --engine folded")


def _check_data(settings: Settings, clients: int) -> dict[str, str]:
    """Find out before anything is written what clients would find out; each task's digest."""
    tasks = parse_tasks(settings.tasks)
    parse_scheme(settings.partition)
    pick_device(settings.device)
    size = load_backbone(settings.backbone).preprocess.size
    digests = {}
    for task in tasks:
        data = load_dataset(task, size, skip_unreadable=settings.skip_unreadable)
        if len(np.unique(data.y_train)) < 2:
            raise RecastError(
                f"task {task} has images of one class only: name at least two classes"
            )
        partition(data, 0, clients, scheme=settings.partition, seed=settings.seed)
        digests[task.name] = data.digest()
    return digests
