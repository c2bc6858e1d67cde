"""A run's options as a TOML file: settings at the top, a command's own options in its table."""

from __future__ import annotations

import difflib
import json
import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from recast_core.errors import RecastError
from recast_core.files import read_text
from recast_core.settings import Settings
from recast_core.task_spec import parse_tasks

# Not of a Settings, which would wait for torch to check itself.
DEFAULTS: Mapping[str, Any] = {
    field.name.replace("_", "-"): field.default for field in fields(Settings)
}
# That begins a text which some editors of Windows have saved.
_MARK = "\ufeff"
COMMANDS = ("simulate", "serve", "measure")


def read_config(path: str, command: str, options: Mapping[str, str]) -> dict[str, Any]:
    """The values that a file gives the options of a command, by the names of their parameters.

    Keys at the top are settings, for all commands. A table ``[serve]`` is for that command alone
    and holds any option of it, settings included, which then come before those at the top.

    Args:
        path: of the file.
        command: that is about to run.
        options: its parameters by how they are written, without dashes at the front.

    Raises:
        RecastError: no such file, no TOML, a table or a key that nobody knows.
    """
    try:
        content = tomllib.loads(read_text(Path(path)).removeprefix(_MARK))
    except OSError as error:
        raise RecastError(f"cannot read {path}: {error.strerror}; name a TOML file") from error
    except (ValueError, RecursionError) as error:
        raise RecastError(f"{path} is no TOML ({error}): --print-config writes one") from error
    settings = DEFAULTS.keys() | {"task"}
    found: dict[str, Any] = {}
    for place in (content, content.get(command)):
        _refuse_twice(place, path)
    for key, value in content.items():
        if isinstance(value, dict):
            if key not in COMMANDS:
                raise RecastError(_unknown(f"table [{key}]", key, COMMANDS, path))
            continue
        name = key.replace("_", "-")
        if name not in settings:
            if name in options:
                raise RecastError(
                    f"{path}: {key!r} is no setting but an option of `recast {command}`: it goes "
                    f"in its table [{command}]"
                )
            raise RecastError(_unknown(f"setting {key!r}", name, settings, path))
        if name in options:
            found[options[name]] = _plain(value, key, path)
    for key, value in content.get(command, {}).items():
        name = key.replace("_", "-")
        if name not in options:
            raise RecastError(_unknown(f"option {key!r} of [{command}]", name, options, path))
        found[options[name]] = _plain(value, key, path)
    return found


def as_toml(command: str, said: Iterable[tuple[str, Any, str, bool]]) -> str:
    """A file that gives a command what it has now.

    Args:
        command: whose options these are.
        said: each option as it is written, its value, who said so, and whether it is a setting.
    """
    top: list[str] = []
    own: list[str] = []
    for name, value, source, is_setting in said:
        if value is None or value == () or value == []:
            line = f"# {name} is not set"
        else:
            line = f"{name} = {_literal(value)}"
            line += "" if source == "default" else f"  # {source}"
        (top if is_setting or name == "task" else own).append(line)
    parts = ["\n".join(top)] if top else []
    if own:
        parts.append("\n".join([f"[{command}]", *own]))
    return "\n\n".join(parts) + "\n"


def _unknown(what: str, name: str, known: Iterable[str], path: str) -> str:
    near = difflib.get_close_matches(name, list(known), n=1)
    hint = f"did you mean {near[0]}?" if near else "--print-config shows what there is"
    return f"{path}: unknown {what}: {hint}"


def _refuse_twice(table: object, path: str) -> None:
    """Refuse an option that is there with dashes and with underscores: TOML takes both."""
    named: dict[str, str] = {}
    for key in table if isinstance(table, dict) else ():
        if (other := named.setdefault(key.replace("_", "-"), key)) != key:
            raise RecastError(f"{path}: {other} and {key} are the same: keep one of them")


def _plain(value: Any, key: str, path: str) -> Any:
    """A value as an option takes it; tasks may be written as a list."""
    if isinstance(value, list) and key == "tasks":
        texts = [str(one) for one in value]
        # Each is a text of its own: what stands for a separator elsewhere is a path's there.
        if any(re.search(r"\s", text) for text in texts):
            texts = [str(spec) for spec in parse_tasks(texts)]
        return " ".join(texts)
    if isinstance(value, list) and all(isinstance(one, str) for one in value):
        return value
    if isinstance(value, bool | int | float | str):
        return value
    raise RecastError(f"{path}: {key} is {value!r}: give a text, a number, true or false")


def _literal(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_literal(one) for one in value) + "]"
    # JSON's escapes are TOML's, but for what stands beyond the first plane: that stays as it is.
    return json.dumps(str(value), ensure_ascii=False).replace("\x7f", "\\u007f")
