"""What repeats a run: its command, and the settings that are not the defaults."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import PurePath
from typing import Any

from experiments.report.names import of_flower
from recast_core.settings import Settings

_OWN_NAMES = {"recast", "recast.exe", "cli.py"}


def reproduce(command: str, config: dict[str, Any]) -> tuple[str, bool]:
    """The command that repeats a run, and whether it is the recorded one.

    Only a command line of ``recast`` itself is repeated as recorded. Another process's, such as
    that of Flower's ServerApp or of a notebook, repeats nothing by itself and may hold addresses
    and tokens: the settings are then written as ``flwr run``, or ``recast``, takes them.
    """
    try:
        words = shlex.split(command)
    except ValueError:
        words = []
    if words and PurePath(words[0]).name in _OWN_NAMES:
        return shlex.join(["recast", *words[1:]]), True
    defaults = Settings().as_dict()
    changed = {
        name: config[name] for name, usual in defaults.items() if config.get(name, usual) != usual
    }
    if not of_flower(command):
        clients = config.get("clients")
        start = (
            ["recast", "simulate", "--clients", str(clients)] if clients else ["recast", "serve"]
        )
        return shlex.join([*start, *_options(changed)]), False
    if not changed:
        return "flwr run .", False
    return shlex.join(["flwr", "run", ".", "--run-config", _toml(changed)]), False


def compared_with_defaults(config: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Each setting's value and whether it is another than the default; those that are come first.

    What is no setting of today (``clients`` of a simulation, a setting of before) is as it was
    given: it has no default.
    """
    defaults = {field.name.replace("_", "-"): field.default for field in fields(Settings)}
    unknown = object()
    rows = {
        name: {"value": value, "changed": defaults.get(name, unknown) != value}
        for name, value in config.items()
        if value is not None and name != "data"
    }
    return dict(sorted(rows.items(), key=lambda item: not item[1]["changed"]))


def settings_that_differ(data: Sequence[dict[str, Any]]) -> dict[str, list[Any]]:
    """The settings that runs do not have in common, with each run's value."""
    names = dict.fromkeys(name for one in data for name in one["run"]["settings"])
    rows = {name: [one["run"]["settings"].get(name) for one in data] for name in names}
    return {
        name: values
        for name, values in rows.items()
        if name not in ("run-dir", "data") and any(value != values[0] for value in values)
    }


def _options(values: Mapping[str, Any]) -> list[str]:
    words: list[str] = []
    for name, value in values.items():
        if isinstance(value, bool):
            words.append(f"--{name}" if value else f"--no-{name}")
        else:
            words += [f"--{name}", str(value)]
    return words


def _toml(values: dict[str, Any]) -> str:
    def literal(value: Any) -> str:
        if isinstance(value, bool):
            return str(value).lower()
        if not isinstance(value, str):
            return str(value)
        # Flower reads no escapes, so a text with one kind of quotes stands in the other.
        return f"'{value}'" if '"' in value else f'"{value}"'

    return " ".join(f"{name}={literal(value)}" for name, value in values.items())
