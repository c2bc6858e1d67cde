"""The ServerApp: from settings to a registry of learned tasks."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from protos import recast_v1_pb2 as pb
from recast_core.errors import RecastError
from recast_core.settings import Settings, parse_quorum
from recast_core.start import Start
from recast_core.task_spec import parse_tasks
from server.exchange.observer import LogObserver, Observer
from server.prepare import keep_bank, kept_start, make_heads, make_start
from server.record.lock import hold, settle
from server.record.registry import Registry
from server.record.resume import unfinished
from server.rounds.strategy import LOOK_SECONDS, FedRecast
from server.terminate import Terminated, interrupt_on_terminate

logger = logging.getLogger("recast.server")
app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """What ``flwr run`` starts."""
    _log_to_the_stream()
    settings = Settings.from_mapping(context.run_config)
    run_federation(grid, settings, run_folder(settings), LogObserver())


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


def run_federation(
    grid: Grid,
    settings: Settings,
    folder: Path,
    observer: Observer,
    started: Callable[[Start, int], None] = lambda bank, run: None,
    *,
    extra: Mapping[str, object] | None = None,
    patience: float = 30.0,
) -> None:
    """Learn every task of the settings over ``grid``, into the registry in ``folder``.

    A run in ``folder`` that did not finish is continued after its last finished round. Tasks that
    are added meanwhile are learned too; with ``keep_running`` the server then waits for more, until
    the run is closed or the process is told to end.

    Args:
        grid: what carries messages.
        settings: the run.
        folder: gets ``registry.sqlite`` and, for recast, ``bank-SHA256.safetensors`` (the first 16
            digits).
        observer: is told of every round.
        started: is given the bank and the run's id in the registry before the first round.
        extra: what decides the run beside its settings; recorded with them.
        patience: seconds to wait for clients where there are none.

    Raises:
        RecastError: anything the user can mend. Finished rounds stay in the registry, also when
            the run is interrupted.
    """
    path = folder / "registry.sqlite"
    config = settings.as_dict() | dict(extra or {})
    parse_tasks(settings.tasks)
    fresh = None if path.exists() else make_start(settings)
    with hold(folder), interrupt_on_terminate():
        if fresh is not None:
            keep_bank(fresh, folder)
        with Registry(path) as registry:
            settle(registry)
            run, bank = _open_run(registry, settings, config, fresh)
            started(bank, run)
            strategy = _strategy(registry, run, bank, settings, observer, patience)
            try:
                _learn(strategy, grid, registry, run, settings.keep_running)
            except BaseException as error:
                stopped = isinstance(error, KeyboardInterrupt | SystemExit)
                strategy.record_rest(grid)
                registry.finish_run(run, "interrupted" if stopped else "failed")
                raise


def _open_run(
    registry: Registry, settings: Settings, config: Mapping[str, object], fresh: Start | None
) -> tuple[int, Start]:
    """The run to learn, an unfinished one if there is one, and its bank."""
    folder = registry.path.parent
    previous = unfinished(registry, config)
    if previous is not None:
        bank = kept_start(folder, previous.bank_sha256, settings)
        if bank.sha256 != previous.bank_sha256:
            raise RecastError(
                f"run {previous.id} in {folder} has bank {previous.bank_sha256.hex()[:8]}, the "
                f"settings now make {bank.sha256.hex()[:8]}: restore the backbone, or name another "
                "--run-dir"
            )
        registry.resume_run(previous.id)
        done = sum(registry.last_rounds(previous.id).values())
        logger.warning("continuing run %d after %d finished rounds", previous.id, done)
        return previous.id, bank
    bank = fresh or make_start(settings)
    keep_bank(bank, folder)
    return registry.start_run(config, bank.sha256, versions()), bank


def _strategy(
    registry: Registry,
    run: int,
    bank: Start,
    settings: Settings,
    observer: Observer,
    patience: float,
) -> FedRecast:
    tasks = [
        pb.Task(id=number, name=spec.name, source=str(spec))
        for number, spec in enumerate(parse_tasks(settings.tasks), start=1)
    ]
    return FedRecast(
        bank,
        tasks,
        settings.rounds,
        settings.hyperparameters(),
        registry,
        run,
        observer,
        settings.deadline,
        parallel=settings.parallel_tasks,
        clients_per_round=settings.clients_per_round,
        quorum=parse_quorum(settings.quorum),
        patience=patience,
        heads=make_heads(settings),
    )


def _learn(
    strategy: FedRecast, grid: Grid, registry: Registry, run: int, keep_running: bool
) -> None:
    """Learn what there is, and what is added, until the run is over; record its end."""
    while True:
        strategy.start(grid, strategy.initial_arrays(), strategy.rounds_left())
        if strategy.ready(grid):  # a task was added meanwhile
            continue
        strategy.evaluate_again(grid)
        strategy.record_rest(grid)
        if keep_running and _another_task(strategy, grid, registry, run):
            continue
        if registry.finish_with(run, len(strategy.states)):
            break
    if strategy.unlearned():
        logger.warning("no client could learn: %s", ", ".join(strategy.unlearned()))


def _another_task(strategy: FedRecast, grid: Grid, registry: Registry, run: int) -> bool:
    """Wait for a task that can be learned; false where the run is over instead."""
    try:
        while not registry.is_closed(run):
            if strategy.ready(grid):
                return True
            time.sleep(LOOK_SECONDS)
    except Terminated:
        logger.info("told to end with all tasks learned")
    return False


def versions() -> dict[str, str]:
    """The versions that decide a run's numbers."""
    found = {}
    for package in ("recast-fl", "flwr", "torch", "torchvision", "numpy", "protobuf"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found
