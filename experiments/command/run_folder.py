"""Find a run's folder, and open what it holds."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from recast_core.backbones import Backbone, load_backbone
from recast_core.bank import TemplateBank
from recast_core.errors import RecastError
from recast_core.model import RecastModel, attach
from recast_core.settings import Settings
from recast_core.wire.head_bytes import unpack_head
from recast_core.wire.messages import RefusedError
from server.prepare import bank_path
from server.record.lock import settle
from server.record.place import REGISTRY, changed, is_there, registries
from server.record.registry import Registry, Run, Task


@contextmanager
def opened(run: Path | None) -> Iterator[tuple[Registry, Run]]:
    """The registry of a run's folder (or the path of its file) and the last run in it.

    Args:
        run: ``None`` for the newest folder under ``runs/``.

    Raises:
        RecastError: there is none.
    """
    path = _newest() if run is None else run / REGISTRY if run.is_dir() else run
    if not is_there(path):
        raise RecastError(f"no run in {run}: name the folder that holds its {REGISTRY}")
    with Registry(path) as registry:
        settle(registry)
        last = registry.last_run()
        if last is None:
            raise RecastError(f"no run has been started in {path}: name another folder")
        yield registry, last


def find_run(run: Path | None, number: int | None = None) -> tuple[Path, int]:
    """The registry's file of a run's folder, and the number of a run that it has.

    Args:
        run: ``None`` for the newest folder under ``runs/``.
        number: of the run; the last one where ``None``.

    Raises:
        RecastError: there is none.
    """
    with opened(run) as (registry, last):
        known = [found.id for found in registry.runs()]
        if number is not None and number not in known:
            raise RecastError(f"{registry.path} has no run {number}: choose one of {known}")
        return registry.path, last.id if number is None else number


def find_task(registry: Registry, run: Run, name: str) -> Task:
    """The task of that name.

    Raises:
        RecastError: the run has none; names near ones.
    """
    tasks = {task.name: task for task in registry.tasks(run.id)}
    if name in tasks:
        return tasks[name]
    near = difflib.get_close_matches(name, tasks, n=1, cutoff=0.4)
    hint = f" (did you mean {near[0]}?)" if near else ""
    raise RecastError(
        f"run {run.id} in {registry.path.parent} has no task {name!r}{hint}: choose "
        f"{', '.join(tasks) or 'another run'}"
    )


@dataclass(frozen=True, eq=False)
class Learned:
    """A task's model: the backbone with the run's bank and the task's coefficients.

    Attributes:
        net: attached, in evaluation mode, on the CPU.
        backbone: what it was attached to.
        bank: of the run.
        task: as the registry has it.
        classes: the names of the task's classes in the order of their ids; none where the run was
            made before they were recorded, or no client had names.
        kept: the head of an earlier task, which this one kept; ``None`` where it kept none.
        merged: the task's own head with these coefficients, as the run's server merged it of what
            clients told; ``None`` where it has not, or does not.
    """

    net: RecastModel
    backbone: Backbone
    bank: TemplateBank
    task: Task
    classes: tuple[str, ...] = ()
    kept: nn.Linear | None = None
    merged: nn.Linear | None = None

    @property
    def head(self) -> nn.Linear | None:
        """The task's head, where the registry has one: its own, or the earlier task's it kept."""
        return self.merged if self.kept is None else self.kept


def learned(registry: Registry, run: Run, name: str) -> Learned:
    """Put a task's model together from a run's folder.

    Raises:
        RecastError: no such task, no finished round of it, or a bank or backbone that is missing.
    """
    task = find_task(registry, run, name)
    vector = registry.coefficients(run.id, task.number)
    if (method := run.config.get("method", "recast")) != "recast":
        raise RecastError(
            f"run {run.id} trained {method}, and models are made of method recast alone: name "
            "another run, or learn the task with --method recast"
        )
    path = bank_path(registry.path.parent, run.bank_sha256)
    if not path.is_file():
        raise RecastError(f"no bank at {path}: restore it, it was written when the run started")
    bank = TemplateBank.load(path, run.bank_sha256)
    if "backbone" not in run.config:
        raise RecastError(f"run {run.id} does not say its backbone: restore a copy of its registry")
    backbone = load_backbone(str(run.config["backbone"]))
    net = attach(backbone.model, bank, backbone.head)
    net.coefficients.load(torch.from_numpy(vector))
    classes = registry.class_lists(run.id).get(task.number, ())
    kept, merged = _heads(registry, run, task)
    return Learned(net, backbone, bank, task, classes, kept, merged)


def _heads(registry: Registry, run: Run, task: Task) -> tuple[nn.Linear | None, nn.Linear | None]:
    """The earlier task's head that a task kept, where it did, and its own, where it has one.

    Raises:
        RecastError: a kept head is not in the registry, or a head is damaged there.
    """
    kept = settings_of(run.config).kept_task
    if kept is None or (
        not kept.path and task.number <= find_task(registry, run, kept.name).number
    ):
        return None, _read_head(registry, run, task) if _measured(registry, run, task) else None
    if registry.head(run.id, task.number) is None:
        raise RecastError(f"task {task.name!r} has not begun with the head of {kept.name!r} yet")
    return _read_head(registry, run, task), None


def _measured(registry: Registry, run: Run, task: Task) -> bool:
    """Whether a task was evaluated, and its head merged, with the coefficients that it has."""
    last = registry.last_rounds(run.id).get(task.number)
    return any((e.task, e.round) == (task.number, last) for e in registry.accuracies(run.id))


def _read_head(registry: Registry, run: Run, task: Task) -> nn.Linear | None:
    found = registry.head(run.id, task.number)
    if found is None:
        return None
    try:
        return unpack_head(found[1], found[0])
    except RefusedError as error:
        raise RecastError(f"{registry.path} is damaged: {error}; restore a copy") from error


def settings_of(config: Mapping[str, object]) -> Settings:
    """The settings in a run's configuration, which holds more besides."""
    known = Settings().as_dict()
    return Settings.from_mapping({k: v for k, v in config.items() if k in known})  # type: ignore[misc]


def _newest() -> Path:
    found = sorted(registries(Path("runs")), key=changed)
    if not found:
        raise RecastError("no run under runs/: name a run's folder with --run")
    return found[-1]
