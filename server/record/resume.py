"""Which run of a registry a server goes on with."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from recast_core.errors import RecastError
from recast_core.setting_values import Value
from recast_core.settings import Settings
from server.record.registry import Registry, Run
from server.record.tables import ShareEntry

# Settings that do not decide what is learned from what.
FREE = frozenset(
    {
        "run-dir", "device", "deadline", "quorum", "max-lag", "keep-running", "data",
        "evaluate-every", "registry", "ledger",
    }
)  # fmt: skip
# What runs were begun with before these were settings or had the defaults of now; ``max-weight``
# came last.
BEFORE: Mapping[str, Value] = {"aggregation": "mean", "max-weight": 0.0}
# What a run's config says of the images of each task, where the server's machine has them.
DATA = "data"


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
    config = dict(config) | begun_with(run.config, config)
    if "max-weight" not in run.config:
        default |= BEFORE
    if DATA in run.config and DATA in config:
        _check_data(registry, run, run.config[DATA], config[DATA])
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


def as_begun(settings: Settings, config: Mapping[str, object]) -> Settings:
    """``settings`` for a run that was begun with ``config``, perhaps before today's defaults."""
    kept = begun_with(config, settings.as_dict())
    return Settings.from_mapping(settings.as_dict() | kept) if kept else settings


def begun_with(begun: Mapping[str, object], config: Mapping[str, object]) -> dict[str, Value]:
    """What a run of before goes on with where ``config`` asks for nothing but today's default."""
    if "max-weight" in begun:
        return {}
    default = Settings().as_dict()
    return {
        name: begun.get(name, before)  # type: ignore[misc]  # what Settings.as_dict wrote
        for name, before in BEFORE.items()
        if config.get(name, default[name]) == default[name]
    }


def _check_data(registry: Registry, run: Run, old: object, new: object) -> None:
    """Refuse to go on with other images than the finished rounds were learned from."""
    if not isinstance(old, dict) or not isinstance(new, dict) or registry.latest(run.id) is None:
        return
    changed = sorted(task for task in old.keys() & new.keys() if old[task] != new[task])
    if changed:
        raise RecastError(
            f"run {run.id} in {registry.path.parent} is not finished and the data of task "
            f"{changed[0]!r} have changed since: restore them, or name another --run-dir"
        )


def changed_shares(
    before: Iterable[ShareEntry], task: int, found: Mapping[str, tuple[int, int]]
) -> list[str]:
    """Lines on clients that announce other counts of a task's images than they did before."""
    told = {
        row.client: (row.train_examples, row.test_examples) for row in before if row.task == task
    }
    return [
        f"client {client} has {now[0]} training and {now[1]} test images of it now, and had "
        f"{told[client][0]} and {told[client][1]}"
        for client, now in sorted(found.items())
        if client in told and told[client] != now
    ]
