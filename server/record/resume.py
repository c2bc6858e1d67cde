"""Which run of a registry a server goes on with."""

from __future__ import annotations

from collections.abc import Mapping

from recast_core.errors import RecastError
from server.record.registry import Registry, Run

# Settings that do not decide what is learned from what.
FREE = frozenset({"run-dir", "device", "deadline", "quorum", "keep-running"})


def unfinished(registry: Registry, config: Mapping[str, object]) -> Run | None:
    """The last run, if it stopped before it was done and ``config`` is its own.

    A run that stopped before its first round was over, with other settings, is left behind.

    Raises:
        RecastError: finished rounds would be lost, since a setting differs; names it.
    """
    run = registry.last_run()
    if run is None or run.status == "finished":
        return None
    different = [
        name
        for name in sorted(run.config.keys() | config.keys())
        if name not in FREE and run.config.get(name) != config.get(name)
    ]
    if not different:
        return run
    if registry.latest(run.id) is None:
        return None
    name = different[0]
    raise RecastError(
        f"run {run.id} in {registry.path.parent} is not finished and has {name} "
        f"{run.config.get(name)!r}, not {config.get(name)!r}: give the same settings to continue "
        "it, or another --run-dir"
    )
