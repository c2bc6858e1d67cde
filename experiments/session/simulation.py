"""A whole federation in this process, or on Flower's simulation: what `recast simulate` runs."""

from __future__ import annotations

import difflib
import logging
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from flwr.serverapp import Grid

from client.app import app as client_app
from client.data import known_classes, load_dataset, parse_scheme, parse_tasks, partition
from client.learners import pick_device
from experiments.engines.crew import crew_for
from experiments.engines.crew.grid import CrewGrid
from experiments.engines.fleet import Fleet
from experiments.engines.fleet_grid import FleetGrid
from experiments.engines.folded import FoldedGrid, FoldedOptions
from experiments.engines.holding import holders, place
from experiments.engines.local import LocalGrid
from experiments.engines.probe import probe_of
from experiments.engines.ray import check_ray, run_on_ray
from experiments.engines.sequential import SequentialGrid
from experiments.logs.callback import Callback
from experiments.logs.watched import watched
from experiments.report.summary import summarise
from recast_core.backbones import load_backbone
from recast_core.errors import RecastError
from recast_core.pulse import begin
from recast_core.secure.check import check_count
from recast_core.settings import Settings
from recast_core.start import Start
from server.app import Conditions, RunResult, run_federation, run_folder
from server.exchange.observer import Observer
from server.flower import server_identity
from server.record.opened import check_registry
from server.record.place import registry_path
from server.record.registry import Registry
from server.record.resume import DATA

ENGINES = ("folded", "sequential", "ray")
MOST_CLIENTS = 1_000_000
# Lets the clients of some partitions hold the bank.
Hold = Callable[[Start, Iterable[int]], None]


class View(Observer, Protocol):
    """An observer that also counts answers, as a progress bar does."""

    def answered(self) -> None:
        """A client has answered."""


@dataclass(frozen=True)
class Population:
    """Who takes part in a simulation, and how they are computed.

    Attributes:
        clients: how many.
        engine: one of ``ENGINES``.
        fleet: what befalls them; ``None`` for nothing.
        bf16: products of the folded engine in bfloat16.
        compiled: ``torch.compile`` its model.
        workers: processes that share its work; 0 for this one, or on a cluster what is there.
        ray: address of a Ray cluster whose workers share it; "" for none.
    """

    clients: int = 20
    engine: str = "folded"
    fleet: Fleet | None = None
    bf16: bool = False
    compiled: bool = False
    workers: int = 0
    ray: str = ""

    @property
    def several(self) -> bool:
        """Whether other processes do the work."""
        return bool(self.workers or self.ray)

    def check(self) -> None:
        """Refuse what no simulation can be.

        Raises:
            RecastError: the first that does not fit.
        """
        if self.clients < 1:
            raise RecastError(f"{self.clients} clients: give at least 1")
        if self.clients > MOST_CLIENTS:
            raise RecastError(f"{self.clients} clients: give at most {MOST_CLIENTS}")
        if self.engine not in ENGINES:
            near = difflib.get_close_matches(self.engine, ENGINES, n=1)
            hint = f" (did you mean {near[0]}?)" if near else ""
            raise RecastError(
                f"unknown engine {self.engine!r}: choose {' or '.join(ENGINES)}{hint}"
            )
        if self.engine == "ray":
            check_ray()
        if self.fleet is not None and self.engine == "ray":
            raise RecastError("a fleet on engine ray: use --engine folded or sequential")
        if (self.bf16 or self.compiled) and self.engine != "folded":
            raise RecastError(f"--bf16 and --compile on engine {self.engine}: use --engine folded")
        if self.workers < 0:
            raise RecastError(f"{self.workers} workers: give at least 1")
        if self.several and self.engine != "folded":
            raise RecastError(f"--workers and --ray on engine {self.engine}: use --engine folded")


@dataclass(frozen=True)
class Finished:
    """What is left of a run: where it is, and what ``--json`` writes of it."""

    result: RunResult
    report: dict[str, Any]


def simulate(
    settings: Settings, people: Population, view: View, callbacks: Sequence[Callback] = ()
) -> Finished:
    """Run the federation to its end.

    Args:
        settings: of the run.
        people: who takes part.
        view: is told of every event and every answer.
        callbacks: are told of rounds and tasks.

    Raises:
        RecastError: settings that cannot run. Finished rounds stay in the registry.
    """
    people.check()
    check_count(settings, people.clients)
    began, folder = time.monotonic(), run_folder(settings)
    check_registry(registry_path(folder), settings.registry)
    digests = _check_data(settings, people.clients)
    extra = {
        "clients": people.clients,
        "bf16": people.bf16 or None,
        "compile": people.compiled or None,
        "fleet": asdict(people.fleet) if people.fleet else None,
        DATA: digests,
    }
    around: FleetGrid | None = None
    with _quiet("flwr", "recast.client"), watched(view, folder, settings, callbacks) as watch:

        def federation(grid: Grid, hold: Hold) -> RunResult:
            def resumed(registry: Registry, run: int, start: Start) -> None:
                hold(start, holders(registry, run, start))

            return run_federation(
                grid,
                settings,
                folder,
                watch.observer,
                extra=extra,
                conditions=Conditions(
                    patience=0.0,
                    classes_of=known_classes,
                    probe_of=partial(probe_of, own=True),
                    resumed=resumed,
                ),
            )

        if people.engine == "ray":
            with _caches() as caches:
                learn = partial(federation, hold=partial(place, caches))
                result = run_on_ray(learn, client_app, people.clients, settings, caches)
        else:
            with _grid(settings, people, view.answered) as grid:
                if people.fleet is not None:
                    around = FleetGrid(grid, people.fleet, settings.seed, settings.epochs)
                result = federation(around or grid, grid.hold)
        report = summarise(result, people.engine, settings.seed, time.monotonic() - began)
        if around is not None:
            report["fleet"] = around.report()
        watch.finished(report)
    return Finished(result, report)


@contextmanager
def _quiet(*names: str) -> Iterator[None]:
    """Of these only errors are logged meanwhile: a simulated client's warning is nobody's."""
    before = [(one, one.level) for one in map(logging.getLogger, names)]
    for one, _ in before:
        one.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for one, level in before:
            one.setLevel(level)


@contextmanager
def _grid(
    settings: Settings, people: Population, answered: Callable[[], None]
) -> Iterator[LocalGrid]:
    """The grid of an engine in this process."""
    with ExitStack() as stack:
        stack.enter_context(server_identity())
        if people.engine == "folded":
            options = FoldedOptions(half=people.bf16, compiled=people.compiled)
            if people.several:
                crew = stack.enter_context(
                    crew_for(people.workers, people.ray, settings, options, people.clients)
                )
                grid = CrewGrid(people.clients, settings, crew, answered)
                yield stack.enter_context(grid)
                return
            yield stack.enter_context(FoldedGrid(people.clients, settings, answered, options))
        else:
            caches = stack.enter_context(_caches())
            yield SequentialGrid(people.clients, client_app, settings, caches, answered)


@contextmanager
def _caches() -> Iterator[Path]:
    """A folder in which simulated clients keep what they were sent, until the process ends."""
    with tempfile.TemporaryDirectory(prefix="recast-") as folder:
        yield Path(folder)


def _check_data(settings: Settings, clients: int) -> dict[str, str]:
    """Find out before anything is written what clients would find out; each task's digest."""
    tasks = parse_tasks(settings.tasks)
    parse_scheme(settings.partition)
    pick_device(settings.device)
    begin(f"loading {settings.backbone}")
    size = load_backbone(settings.backbone).preprocess.size
    digests = {}
    for task in tasks:
        begin(f"reading the images of task {task.name}")
        data = load_dataset(task, size, skip_unreadable=settings.skip_unreadable)
        if len(np.unique(data.y_train)) < 2:
            raise RecastError(
                f"task {task} has images of one class only: name at least two classes"
            )
        partition(
            data, 0, clients, scheme=settings.partition, seed=settings.seed, labels=settings.labels
        )
        digests[task.name] = data.digest()
    begin("preparing the bank")
    return digests
