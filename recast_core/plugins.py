"""Plug-ins: modules of other packages that register what they add when they are imported.

A plug-in calls ``register_source``, ``register_method``, ``register_head``,
``register_transform``, ``register_aggregation`` or ``register_transport``. It is found by name, in
the environment variable ``RECAST_PLUGINS``, or is installed with an entry point of the group
``recast.plugins``. Every process of a run needs it: what is set for the command is set for the
processes that it starts; on other machines it is up to their users.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import cache, partial
from importlib import import_module
from importlib.metadata import entry_points

from recast_core.errors import RecastError

VARIABLE = "RECAST_PLUGINS"
GROUP = "recast.plugins"


@cache
def load_plugins() -> tuple[str, ...]:
    """Import every plug-in, once in a process; their names.

    Raises:
        RecastError: one is missing, or raises.
    """
    told = os.environ.get(VARIABLE, "").replace(",", " ").split()
    for module in told:
        _load(module, partial(import_module, module), f"leave it out of {VARIABLE}")
    installed = sorted(entry_points(group=GROUP), key=lambda found: (found.name, found.value))
    for found in installed:
        _load(f"{found.name} ({found.value})", found.load, "uninstall its package")
    return (*told, *(found.name for found in installed))


def _load(name: str, load: Callable[[], object], otherwise: str) -> None:
    try:
        load()
    except ModuleNotFoundError as error:
        raise RecastError(
            f"plug-in {name}: {error}: install it, put its folder on PYTHONPATH, or {otherwise}"
        ) from error
    except Exception as error:
        detail = " ".join(str(error).split()) or "no reason given"
        raise RecastError(
            f"plug-in {name} cannot be loaded ({type(error).__name__}: {detail}): mend it, or "
            f"{otherwise}"
        ) from error
