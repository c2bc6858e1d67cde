"""What is read from a registry is of the types that its tables say, whoever wrote the file."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import cache
from types import UnionType
from typing import Any

from sqlalchemy import JSON, event, inspect
from sqlalchemy.types import TypeEngine

from recast_core.settings import Settings
from server.record.tables import Base, Run

# No run counts so far: 9 petabytes.
LARGEST = 2**53
Column = tuple[str, type, bool]
Kinds = type | UnionType
_KEPT = "\n\t"
_TIMES = frozenset({"started", "finished", "recorded"})


@cache
def check_rows() -> None:
    """Look at every row that this process loads from now on."""
    event.listen(Base, "load", _check, propagate=True)


def sound(what: str, values: Sequence[object], kinds: Sequence[Kinds]) -> tuple[Any, ...]:
    """Values of a query that loads no rows, if they are of these types; controls out of text.

    Raises:
        ValueError: one is of another type; names ``what``.
    """
    for value, kind in zip(values, kinds, strict=True):
        if isinstance(value, bool) or not isinstance(value, kind):
            raise ValueError(f"{what} holds {type(value).__name__}")
    return tuple(_printable(value) if isinstance(value, str) else value for value in values)


def within(what: str, least: int, most: int, lowest: int) -> None:
    """Refuse counts that nothing could have been counted to.

    Raises:
        ValueError: ``least`` is below ``lowest``, or ``most`` beyond any count; names ``what``.
    """
    if least < lowest or most > LARGEST:
        raise ValueError(f"{what} is {least if least < lowest else most}")


def _printable(text: str) -> str:
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in _KEPT else " " for c in text)


def _check(row: Base, _context: object) -> None:
    """Refuse a value of another type, or a number that is not finite; take controls out of text.

    SQLite lets any column hold any type, and text of a file may hold orders to a terminal.

    Raises:
        ValueError: names table and column.
    """
    values: dict[str, Any] = row.__dict__
    for name, kind, nullable in _columns(type(row)):
        value: Any = values.get(name)
        if value is None and (nullable or name not in values):
            continue
        if kind is float and type(value) is int:
            continue
        found: type = type(value)
        if found is not kind or (kind is float and not math.isfinite(value)):
            what = value if found is kind else found.__name__
            raise ValueError(f"{row.__tablename__}.{name} is {what}")
        if name in _TIMES and datetime.fromisoformat(value).tzinfo is None:
            raise ValueError(f"{row.__tablename__}.{name} has no time zone")
        if kind is str:
            values[name] = _printable(value)
    if "config" in values and isinstance(row, Run):
        _check_config(values["config"])


def _check_config(config: Mapping[str, object]) -> None:
    """What a run has of today's settings is of their types; of others nobody knows.

    Raises:
        ValueError: names the setting.
    """
    for name, default in _defaults().items():
        value = config.get(name, default)
        number = isinstance(default, float) and type(value) is int
        if type(value) is not type(default) and not number:
            raise ValueError(f"runs.config has {name} of type {type(value).__name__}")
        if isinstance(value, float) and not math.isfinite(value):
            raise ValueError(f"runs.config has {name} {value}")


@cache
def _defaults() -> Mapping[str, object]:
    return Settings().as_dict()


@cache
def _columns(table: type[Base]) -> tuple[Column, ...]:
    """Name, Python type and whether it may be nothing, of each column."""
    return tuple(
        (attribute.key, _kind(column.type), bool(column.nullable))
        for attribute in inspect(table).column_attrs
        for column in attribute.columns
    )


def _kind(declared: TypeEngine[object]) -> type:
    return dict if isinstance(declared, JSON) else declared.python_type
