"""Rows of a study in a file, as they are made, so that it goes on where it stopped."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from recast_core.files import write_atomically

Row = dict[str, Any]


class OutOfTime(Exception):  # noqa: N818  it is no error
    """The budget is spent; everything that was made is written."""


@dataclass
class Book:
    """Rows in a file, as they are made, and the time that is left.

    Attributes:
        path: JSON lines.
        until: monotonic seconds.
    """

    path: Path
    until: float
    _rows: list[Row] = field(default_factory=list)

    def __post_init__(self) -> None:
        if not self.path.exists():
            return
        text = self.path.read_text("utf-8")
        whole = text[: text.rfind("\n") + 1]
        if whole != text:
            # A run that was killed left half a line, to which the next would be added.
            write_atomically(self.path, whole.encode())
        self._rows += [json.loads(line) for line in whole.splitlines()]

    def find(self, **values: object) -> Row | None:
        """The row that has these values."""
        for row in self._rows:
            if all(row.get(name) == value for name, value in values.items()):
                return row
        return None

    def all(self, **values: object) -> list[Row]:
        """All rows that have these values."""
        wanted = values.items()
        return [row for row in self._rows if all(row.get(n) == v for n, v in wanted)]

    def add(self, row: Row) -> None:
        """Write a row."""
        self._rows.append(row)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")

    def check(self) -> None:
        """Raise ``OutOfTime`` where the budget is spent."""
        if time.monotonic() > self.until:
            raise OutOfTime
