"""``recast simulate``: the whole federation in this process, or on Flower's simulation."""

from __future__ import annotations

import difflib
import logging
import tempfile
import time
from pathlib import Path
from typing import Any

from flwr.serverapp import Grid

from client.app import app as client_app
from client.data import parse_scheme, parse_tasks
from experiments.console import ProgressObserver, print_summary
from experiments.engines.ray import run_on_ray
from experiments.engines.sequential import RUN_ID, SequentialGrid
from experiments.summary import summarise
from experiments.warnings import warn_of_many
from recast_core.backbones import load_backbone
from recast_core.bank import TemplateBank
from recast_core.errors import RecastError
from recast_core.settings import Settings
from server.app import run_federation, run_folder
from server.flower import server_identity
from server.ledger import Ledger
from server.registry import Registry

ENGINES = ("sequential", "ray")


def simulate(settings: Settings, clients: int, engine: str) -> dict[str, Any]:
    """Run the federation, print its closing table and return its report.

    Raises:
        RecastError: settings that cannot run. Finished rounds stay in the registry.
    """
    if clients < 1:
        raise RecastError(f"{clients} clients: give at least 1")
    if engine not in ENGINES:
        near = difflib.get_close_matches(engine, ENGINES, n=1)
        hint = f" (did you mean {near[0]}?)" if near else ""
        raise RecastError(f"unknown engine {engine!r}: choose {' or '.join(ENGINES)}{hint}")
    tasks = parse_tasks(settings.tasks)
    parse_scheme(settings.partition)
    model = load_backbone(settings.backbone).model
    model_bytes = 4 * sum(parameter.numel() for parameter in model.parameters())
    logging.getLogger("flwr").setLevel(logging.ERROR)
    logging.getLogger("recast.client").setLevel(logging.ERROR)
    folder = run_folder(settings)
    began = time.monotonic()
    made: list[tuple[TemplateBank, int]] = []

    def started(bank: TemplateBank, run: int) -> None:
        warn_of_many(bank.trained)
        made.append((bank, run))

    with ProgressObserver(len(tasks)) as observer:

        def federation(grid: Grid) -> None:
            run_federation(grid, settings, folder, observer, started)

        if engine == "ray":
            run_on_ray(federation, client_app, clients, settings)
        else:
            with (
                tempfile.TemporaryDirectory(prefix="recast-") as caches,
                server_identity(RUN_ID),
            ):
                federation(
                    SequentialGrid(clients, client_app, settings, Path(caches), observer.answered)
                )
    (bank, run) = made[0]
    with Registry(folder / "registry.sqlite") as registry:
        report = summarise(registry, run, bank, engine, settings.seed, time.monotonic() - began)
        by_kind = Ledger(registry).totals(run, by=("kind", "layer"))
    print_summary(report, model_bytes, by_kind.get(("bank", "payload"), 0))
    print(f"registry: {folder / 'registry.sqlite'}")
    return report
