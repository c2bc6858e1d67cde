"""Federated continual learning at tens of bytes per update: the public face of recast in Python.

A federation of 20 simulated clients, and what it leaves:

    import recast

    run = recast.simulate(tasks=["digits", "digits+inverted"], clients=20, rounds=3)
    run.tasks, run.history, run.ledger        # pandas data frames
    run.report("report.html")
    tasks = run.library()                     # a TaskLibrary: save, activate, export

The method alone, as in a PEFT session:

    bank = recast.mimic(model, recast.RecastConfig(target="mlp", groups=6))
    net = recast.attach(model, bank)
    found = recast.fit(net, images, labels, classes=10)

The settings are those of the `recast` command (``recast simulate --help``). Errors that you can
mend are a ``RecastError`` of one line. Nothing heavy is imported before it is used.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from experiments.logs.callback import Callback, RoundFinished, RunStarted, TaskFinished
    from experiments.logs.table import register_log
    from experiments.session.federation import Federation, Tasks
    from experiments.session.run import Run
    from recast_core.backbones import load_backbone
    from recast_core.bank import TemplateBank
    from recast_core.config import RecastConfig
    from recast_core.errors import RecastError
    from recast_core.fitting import fit
    from recast_core.heads import register_head
    from recast_core.library import About, TaskLibrary
    from recast_core.methods import register_method
    from recast_core.mimicry import mimic
    from recast_core.model import RecastModel, attach
    from recast_core.settings import Settings
    from recast_core.sources import register_source
    from recast_core.wire.transforms import register_transform
    from server.rounds.aggregation import Contribution, register_aggregation

_HOME = {
    "About": "recast_core.library",
    "Callback": "experiments.logs.callback",
    "Contribution": "server.rounds.aggregation",
    "Federation": "experiments.session.federation",
    "RecastConfig": "recast_core.config",
    "RecastError": "recast_core.errors",
    "RecastModel": "recast_core.model",
    "RoundFinished": "experiments.logs.callback",
    "Run": "experiments.session.run",
    "RunStarted": "experiments.logs.callback",
    "Settings": "recast_core.settings",
    "TaskFinished": "experiments.logs.callback",
    "TaskLibrary": "recast_core.library",
    "TemplateBank": "recast_core.bank",
    "attach": "recast_core.model",
    "fit": "recast_core.fitting",
    "load_backbone": "recast_core.backbones",
    "mimic": "recast_core.mimicry",
    "register_aggregation": "server.rounds.aggregation",
    "register_head": "recast_core.heads",
    "register_log": "experiments.logs.table",
    "register_method": "recast_core.methods",
    "register_source": "recast_core.sources",
    "register_transform": "recast_core.wire.transforms",
}

__all__ = [
    "About",
    "Callback",
    "Contribution",
    "Federation",
    "RecastConfig",
    "RecastError",
    "RecastModel",
    "RoundFinished",
    "Run",
    "RunStarted",
    "Settings",
    "TaskFinished",
    "TaskLibrary",
    "TemplateBank",
    "attach",
    "fit",
    "load_backbone",
    "mimic",
    "open_run",
    "register_aggregation",
    "register_head",
    "register_log",
    "register_method",
    "register_source",
    "register_transform",
    "simulate",
]


def simulate(
    tasks: Tasks | None = None,
    clients: int = 20,
    engine: str = "folded",
    *,
    callbacks: Iterable[Callback] = (),
    on_round: Callable[[RoundFinished], object] | None = None,
    on_task: Callable[[TaskFinished], object] | None = None,
    log: str | Sequence[str] = (),
    progress: bool | None = None,
    **settings: Any,
) -> Run:
    """Run a federation with simulated clients: ``recast simulate`` from Python.

    Args:
        tasks: DATA specifications: one text, a list, or a mapping from names.
        clients: how many.
        engine: ``folded``, ``sequential`` or ``ray``.
        callbacks: are told of the run, each round and each task.
        on_round: is called after each round.
        on_task: is called after each task's evaluation.
        log: ``KIND:WHERE``, one or several, as ``--log`` takes them.
        progress: show how far it is; where ``None``, on a terminal and in a notebook.
        settings: every other option of ``recast simulate --help``, with underscores.
            ``aggregation``, ``method``, ``head``, ``source`` and ``bank`` take objects too.

    Raises:
        RecastError: an unknown setting, or a value that does not fit. Rounds that had finished
            stay in the registry.
    """
    from experiments.session.federation import Federation, split

    settings, options = split(settings)
    federation = Federation(
        tasks, callbacks=callbacks, on_round=on_round, on_task=on_task, log=log, **settings
    )
    return federation.simulate(clients, engine, progress=progress, **options)


def open_run(folder: Path | str | None = None, number: int | None = None) -> Run:
    """A run that was made before, by Python or by the command.

    Args:
        folder: of the run; the newest under ``runs/`` where ``None``.
        number: of the run in its registry; the last one where ``None``.

    Raises:
        RecastError: there is none.
    """
    from experiments.session.run import Run

    return Run.open(folder, number)


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return [*__all__, "__doc__"]
