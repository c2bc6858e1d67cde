"""The command that repeats a run."""

from __future__ import annotations

import shlex
from pathlib import PurePath
from typing import Any

from recast_core.settings import Settings

_OWN_NAMES = {"recast", "recast.exe", "cli.py"}


def reproduce(command: str, config: dict[str, Any]) -> tuple[str, bool]:
    """The command that repeats a run, and whether it is the recorded one.

    Only a command line of ``recast`` itself is repeated as recorded. Another process's, such as
    that of Flower's ServerApp, repeats nothing by itself and may hold addresses and tokens: the
    settings are then written as ``flwr run`` takes them.
    """
    try:
        words = shlex.split(command)
    except ValueError:
        words = []
    if words and PurePath(words[0]).name in _OWN_NAMES:
        return shlex.join(["recast", *words[1:]]), True
    defaults = Settings().as_dict()
    changed = {name: value for name, value in config.items() if defaults.get(name) != value}
    if not changed:
        return "flwr run .", False
    return shlex.join(["flwr", "run", ".", "--run-config", _toml(changed)]), False


def _toml(values: dict[str, Any]) -> str:
    def literal(value: Any) -> str:
        if isinstance(value, bool):
            return str(value).lower()
        if not isinstance(value, str):
            return str(value)
        # Flower reads no escapes, so a text with one kind of quotes stands in the other.
        return f"'{value}'" if '"' in value else f'"{value}"'

    return " ".join(f"{name}={literal(value)}" for name, value in values.items())
