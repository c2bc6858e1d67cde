"""The ServerApp: from settings to a registry of learned tasks."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from protos import recast_v1_pb2 as pb
from recast_core.errors import RecastError
from recast_core.plugins import load_plugins
from recast_core.settings import Settings
from recast_core.start import Start
from recast_core.task_spec import parse_tasks
from recast_core.text import plain
from server.exchange.carried import Ending
from server.exchange.notices import Noticing
from server.exchange.observer import LogObserver, Observer
from server.exchange.standing import WatchedGrid
from server.idle import idle_settings
from server.prepare import bank_path, check_length, keep_bank, kept_start, make_heads, make_start
from server.record.database import AwayError
from server.record.farewell import farewell_given, owe_farewell, owed_farewell
from server.record.lock import hold, settle
from server.record.opened import check_registry
from server.record.place import is_there, registry_path
from server.record.registry import Registry, Run
from server.record.resume import as_begun, unfinished
from server.record.secret import sampling_secret
from server.rounds.attendance import LOOK_SECONDS
from server.rounds.gathering import ClassesOf
from server.rounds.plan import RoundPlan
from server.rounds.probe import Probe
from server.rounds.strategy import FedRecast
from server.terminate import Terminated, interrupt_on_terminate
from server.versions import versions

logger = logging.getLogger("recast.server")
SECONDS_TO_TELL = 2.0
app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """What ``flwr run`` starts."""
    _log_to_the_stream()
    load_plugins()
    settings = Settings.from_mapping(context.run_config)
    folder = run_folder(settings)
    watched = WatchedGrid(grid, folder)
    run_federation(
        watched, settings, folder, LogObserver(), conditions=Conditions(secret_sampling=True)
    )


def _log_to_the_stream() -> None:
    """Let what this package logs reach the log that ``flwr run --stream`` shows."""
    package = logging.getLogger("recast")
    if not package.handlers:
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("%(levelname)s: %(message)s"))
        package.addHandler(handler)
        package.setLevel(logging.INFO)


def run_folder(settings: Settings) -> Path:
    """The folder of a run: as set, else one of its own under ``runs/``."""
    if settings.run_dir:
        return Path(settings.run_dir)
    return Path("runs") / time.strftime("%Y%m%d-%H%M%S")


@dataclass(frozen=True)
class RunResult:
    """What a federation leaves.

    Attributes:
        folder: of its registry and its bank.
        run: its id in the registry.
        start: what its vectors count from.
    """

    folder: Path
    run: int
    start: Start

    @property
    def registry(self) -> Path:
        """See ``registry_path``."""
        return registry_path(self.folder)


ProbeOf = Callable[[Settings, Start], Probe | None]
Resumed = Callable[[Registry, int, Start], None]


@dataclass(frozen=True)
class Conditions:
    """Where and among whom a server works; nothing of it is a setting of the run.

    Attributes:
        patience: seconds to wait for clients where there are none.
        classes_of: the class list of a task by its source, or ``None`` where only the clients
            know it.
        secret_sampling: draw clients by a secret of the run's folder, where they are others'
            machines; by the run's seed, which clients know, where a run is to be repeated.
        probe_of: the images by which the server judges for itself, if there are any.
        resumed: is told of a run that goes on, before its clients are greeted.
        held: whether the caller has the folder already: ``server.standing.reserved``.
    """

    patience: float = 30.0
    classes_of: ClassesOf | None = None
    secret_sampling: bool = False
    probe_of: ProbeOf | None = None
    resumed: Resumed | None = None
    held: bool = False


def run_federation(
    grid: Grid,
    settings: Settings,
    folder: Path,
    observer: Observer,
    *,
    extra: Mapping[str, object] | None = None,
    conditions: Conditions | None = None,
) -> RunResult:
    """Learn every task of the settings over ``grid``, into the registry in ``folder``.

    A run in ``folder`` that did not finish is continued after its last finished round. Tasks that
    are added meanwhile are learned too; with ``keep_running`` the server then waits for more, until
    the run is closed or the process is told to end.

    Args:
        grid: what carries messages.
        settings: the run.
        folder: gets the registry, or where it is, and for recast ``bank-SHA256.safetensors``.
        observer: is told of every round.
        extra: what decides the run beside its settings; recorded with them.
        conditions: under which the server works; the usual ones where ``None``.

    Raises:
        RecastError: anything the user can mend. Finished rounds stay in the registry, also when
            the run is interrupted.
    """
    config, around = settings.as_dict() | dict(extra or {}), conditions or Conditions()
    tasks = _tasks(settings)
    RoundPlan.of(settings, around.patience)  # refuses what cannot be, before a file is written
    path = registry_path(folder)
    check_registry(path, settings.registry)
    fresh = None if path.exists() or is_there(path) else make_start(settings)
    with nullcontext() if around.held else hold(folder), interrupt_on_terminate():
        if fresh is not None:
            keep_bank(fresh, folder)
        with Registry(path, url=settings.registry) as registry:
            registry.claim()
            settle(registry)
            previous, start = _start(registry, settings, config, fresh)
            check_length(grid, start, settings)
            settings = as_begun(settings, previous.config if previous else config)
            run = _open_run(registry, config, start, previous)
            if previous is not None and around.resumed is not None:
                around.resumed(registry, run, start)
            observer.run_started(start)
            for line in idle_settings(settings, start):
                logger.warning(line)
            heads = make_heads(settings, around.classes_of, start)
            plan = _plan(settings, around, folder, start)
            strategy = FedRecast(start, tasks, plan, registry, run, observer, heads)
            try:
                _learn(strategy, grid, registry, run, settings.keep_running)
            except BaseException as error:
                stopped = isinstance(error, KeyboardInterrupt | SystemExit)
                registry.patience = 0.0
                if isinstance(error, RecastError) and isinstance(grid, Noticing):
                    grid.notify_all(plain(f"the run has failed: {error}", 400), SECONDS_TO_TELL)
                with suppress(AwayError):  # the error is another, or this very one
                    _end(strategy, grid, finished=False)
                    registry.finish_run(run, "interrupted" if stopped else "failed")
                raise
            _end(strategy, grid, finished=True)
            farewell_given(folder)
    return RunResult(folder, run, start)


def _plan(settings: Settings, around: Conditions, folder: Path, start: Start) -> RoundPlan:
    """How the rounds of a run go that has begun."""
    secret = sampling_secret(folder) if around.secret_sampling else None
    plan = RoundPlan.of(settings, around.patience, start).hidden(secret)
    return replace(plan, probe=around.probe_of(settings, start)) if around.probe_of else plan


def ended_untold(settings: Settings, folder: Path) -> RunResult | None:
    """The run in ``folder`` that ended when its server died before it could tell its clients.

    Raises:
        RecastError: its registry or its bank cannot be read.
    """
    owed, path = owed_farewell(folder), registry_path(folder)
    if owed is None or not is_there(path):
        return None
    with Registry(path) as registry:
        last = registry.last_run()
        ended = last is not None and (last.id, last.status) == (owed, "finished")
        if last is None or not ended or last.config.get("tasks") != settings.tasks:
            return None
        return RunResult(folder, owed, kept_start(folder, last.bank_sha256, settings))


def _tasks(settings: Settings) -> list[pb.Task]:
    return [
        pb.Task(id=number, name=spec.name, source=str(spec))
        for number, spec in enumerate(parse_tasks(settings.tasks), start=1)
    ]


def _start(
    registry: Registry, settings: Settings, config: Mapping[str, object], fresh: Start | None
) -> tuple[Run | None, Start]:
    """The unfinished run to continue, if there is one, and what vectors count from."""
    folder = registry.path.parent
    previous = unfinished(registry, config)
    if previous is None:
        return None, fresh or make_start(settings)
    start = kept_start(folder, previous.bank_sha256, settings)
    if start.sha256 != previous.bank_sha256:
        raise RecastError(
            f"run {previous.id} in {folder} has bank {previous.bank_sha256.hex()[:8]}, the "
            f"settings now make {start.sha256.hex()[:8]}: restore the backbone, or name another "
            "--run-dir"
        )
    return previous, start


def _open_run(
    registry: Registry, config: Mapping[str, object], start: Start, previous: Run | None
) -> int:
    """Record that a run begins, or that ``previous`` goes on, and return its id."""
    if previous is None or not bank_path(registry.path.parent, start.sha256).exists():
        keep_bank(start, registry.path.parent)
    if previous is None:
        return registry.start_run(config, start.sha256, versions())
    registry.resume_run(previous.id)
    done = sum(registry.last_rounds(previous.id).values())
    logger.warning("continuing run %d after %d finished rounds", previous.id, done)
    return previous.id


def _learn(
    strategy: FedRecast, grid: Grid, registry: Registry, run: int, keep_running: bool
) -> None:
    """Learn what there is, and what is added, until the run is over; record its end.

    Raises:
        Terminated: the process was told to end, and there is something left to learn or to measure.
    """
    while True:
        waiting = False
        told: Terminated | None = None
        try:
            strategy.start(grid, strategy.initial_arrays(), strategy.rounds_left())
            if strategy.ready(grid):  # a task was added meanwhile
                continue
            strategy.evaluate_again(grid)
            strategy.record_rest(grid)
            waiting = keep_running
            if waiting and _another_task(strategy, grid, registry, run):
                continue
        except Terminated as error:
            if not waiting and not strategy.is_done():
                raise
            logger.info("told to end with all tasks learned")
            told = error
        if isinstance(grid, Ending):
            owe_farewell(registry.path.parent, run)
        if registry.finish_with(run, len(strategy.states)):
            break
        if told is not None:
            raise told
    if strategy.unlearned():
        logger.warning("no client could learn: %s", ", ".join(strategy.unlearned()))


def _end(strategy: FedRecast, grid: Grid, *, finished: bool) -> None:
    """Let a grid that has an end come to it, and record all that passed until then."""
    if isinstance(grid, Ending):
        grid.end(finished=finished)
    strategy.record_rest(grid, last=True)


def _another_task(strategy: FedRecast, grid: Grid, registry: Registry, run: int) -> bool:
    """Wait for a task that can be learned; false where the run is over instead."""
    logger.info("all tasks are learned: waiting for another, or for the run to be closed")
    while not registry.is_closed(run):
        if strategy.ready(grid):
            return True
        strategy.record_rest(grid)
        time.sleep(LOOK_SECONDS)
    return False
