"""Which run of a registry a server goes on with."""

from __future__ import annotations

from collections.abc import Mapping

from recast_core.errors import RecastError
from recast_core.settings import Settings
from server.record.registry import Registry, Run

# Settings that do not decide what is learned from what.
FREE = frozenset({"run-dir", "device", "deadline", "quorum", "max-lag", "keep-running"})


def unfinished(registry: Registry, config: Mapping[str, object]) -> Run | None:
    """The last run, if it stopped before it was done and ``config`` is its own.

    A run that stopped before its first round was over, with other settings, is left behind.

    Raises:
        RecastError: finished rounds would be lost, since a setting differs; names it.
    """
    run = registry.last_run()
    if run is None or run.status == "finished":
        return None
    # A run of before a setting was there had what is the default now.
    default = Settings().as_dict()
    pairs = {
        name: tuple(one.get(name, default.get(name)) for one in (run.config, config))
        for name in sorted(run.config.keys() | config.keys())
    }
    different = [name for name, (old, new) in pairs.items() if name not in FREE and old != new]
    if not different:
        return run
    if registry.latest(run.id) is None:
        return None
    name = different[0]
    old, new = pairs[name]
    raise RecastError(
        f"run {run.id} in {registry.path.parent} is not finished and has {name} "
        f"{old!r}, not {new!r}: give the same settings to continue "
        "it, or another --run-dir"
    )
