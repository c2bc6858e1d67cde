"""The ServerApp: from settings to a registry of learned tasks."""

from __future__ import annotations

import time
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch
from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from protos import recast_v1_pb2 as pb
from recast_core.backbones import load_backbone
from recast_core.bank import TemplateBank
from recast_core.heads.wire import TRAVELLING
from recast_core.learner import method_learner
from recast_core.methods.edits import opened
from recast_core.mimicry import mimic
from recast_core.model import attach
from recast_core.settings import Settings
from recast_core.start import MethodStart, Start
from recast_core.task_spec import parse_tasks
from server.heads import Heads
from server.observer import LogObserver, Observer
from server.registry import Registry
from server.strategy import FedRecast

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """What ``flwr run`` starts."""
    settings = Settings.from_mapping(context.run_config)
    run_federation(grid, settings, run_folder(settings), LogObserver())


def run_folder(settings: Settings) -> Path:
    """The folder of a run: as set, else one of its own under ``runs/``."""
    if settings.run_dir:
        return Path(settings.run_dir)
    return Path("runs") / time.strftime("%Y%m%d-%H%M%S")


def make_bank(settings: Settings) -> TemplateBank:
    """The bank that the settings describe, made or read.

    Raises:
        RecastError: no such bank, or one of another backbone.
    """
    backbone = load_backbone(settings.backbone).model
    if not settings.bank:
        return mimic(backbone, settings.recast())
    bank = TemplateBank.load(settings.bank)
    # Refuses a bank of another backbone now, where every client would later.
    attach(backbone, bank)
    return bank


def make_start(settings: Settings) -> TemplateBank | MethodStart:
    """The bank that the settings describe, or the start of the method that they name."""
    method = settings.canonical_method()
    if method == "recast":
        return make_bank(settings)
    backbone = load_backbone(settings.backbone).model
    return method_learner(method, backbone, torch.device("cpu")).start


def make_heads(settings: Settings) -> Heads:
    """The kind of head that the settings name."""
    width = 0
    if settings.head in TRAVELLING:
        backbone = load_backbone(settings.backbone)
        size = backbone.preprocess.size
        with torch.no_grad():
            width = opened(backbone.model).features(torch.zeros(1, 3, size, size)).shape[1]
    return Heads(settings.head, width, settings.baseline, settings.broadcast_bits)


def run_federation(
    grid: Grid,
    settings: Settings,
    folder: Path,
    observer: Observer,
    started: Callable[[Start, int], None] = lambda bank, run: None,
) -> None:
    """Learn every task of the settings over ``grid``, into the registry in ``folder``.

    Args:
        grid: what carries messages.
        settings: the run.
        folder: gets ``registry.sqlite`` and, for recast, ``bank-SHA256.safetensors`` (the first 16
            digits).
        observer: is told of every round.
        started: is given the bank and the run's id in the registry before the first round.

    Raises:
        RecastError: anything the user can mend. Finished rounds stay in the registry, also when
            the run is interrupted.
    """
    tasks = [
        pb.Task(id=number, name=spec.name, source=str(spec))
        for number, spec in enumerate(parse_tasks(settings.tasks), start=1)
    ]
    bank = make_start(settings)
    if isinstance(bank, TemplateBank):
        bank.save(folder / f"bank-{bank.sha256[:8].hex()}.safetensors")
    with Registry(folder / "registry.sqlite") as registry:
        run = registry.start_run(settings.as_dict(), bank.sha256, versions())
        started(bank, run)
        strategy = FedRecast(
            bank,
            tasks,
            settings.rounds,
            settings.hyperparameters(),
            registry,
            run,
            observer,
            heads=make_heads(settings),
        )
        try:
            strategy.start(grid, strategy.initial_arrays(), len(tasks) * settings.rounds)
            strategy.evaluate_again(grid)
        except BaseException as error:
            stopped = isinstance(error, KeyboardInterrupt)
            strategy.record_rest()
            registry.finish_run(run, "interrupted" if stopped else "failed")
            raise
        registry.finish_run(run, "finished")


def versions() -> dict[str, str]:
    """The versions that decide a run's numbers."""
    found = {}
    for package in ("recast-fl", "flwr", "torch", "torchvision", "numpy", "protobuf"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found
