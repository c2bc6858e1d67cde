"""A run's tasks as a library, each with a head."""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn

from experiments.command.deployed import has_head
from experiments.command.run_folder import learned
from experiments.command.tasks_export import fit_head
from recast_core.errors import RecastError
from recast_core.layers import has_hooks, why_not
from recast_core.library import TaskLibrary
from server.record.registry import Registry, Run


def library_of(registry: Registry, run: Run, data: Mapping[str, str]) -> TaskLibrary:
    """Every task of a run that has a finished round.

    Args:
        registry: of the run.
        run: that trained coefficients.
        data: DATA by task, in place of the tasks' own.

    Raises:
        RecastError: an unknown task among ``data``, data that cannot be used, or none for a task
            whose head has to be fitted.
    """
    tasks, rounds = registry.tasks(run.id), registry.last_rounds(run.id)
    if unknown := data.keys() - {task.name for task in tasks}:
        raise RecastError(
            f"run {run.id} has no task {min(unknown)!r}: name those of "
            f"{', '.join(task.name for task in tasks)}"
        )
    library: TaskLibrary | None = None
    for task in tasks:
        if task.number not in rounds:
            continue
        model = learned(registry, run, task.name)
        library = library or TaskLibrary(model.bank)
        sent = model.net.coefficients.sent()
        if has_head(model, run.config):
            head = linear_of(model.net.own_head) if model.head is None else model.head
            classes = model.classes or (model.backbone.classes if model.head is None else ())
        else:
            source = data.get(task.name, task.source)
            if not source:
                raise RecastError(
                    f"task {task.name} has its clients' own data, and their heads stay with them: "
                    f"give data={{{task.name!r}: DATA}} to fit one on"
                )
            fitted = fit_head(model, source)
            head, classes = fitted.head, fitted.classes
        library.add(task.name, sent, head, classes or None)
    if library is None:
        raise RecastError(f"run {run.id} in {registry.path.parent} has no finished round yet")
    return library


def linear_of(head: nn.Module) -> nn.Linear:
    """The linear layer that a backbone's classifier is.

    Raises:
        RecastError: it computes more than that.
    """
    leaves = [module for module in head.modules() if not list(module.children())]
    found = [module for module in leaves if isinstance(module, nn.Linear)]
    silent = all(isinstance(m, nn.Linear | nn.Dropout | nn.Identity | nn.Flatten) for m in leaves)
    if len(found) != 1 or not silent or why_not(found[0], "weight") or has_hooks(head):
        raise RecastError(
            f"the deployed classifier is a {type(head).__name__} that computes more than one plain "
            "Linear does, which is all that a library keeps: use run.model(TASK)"
        )
    return found[0]
