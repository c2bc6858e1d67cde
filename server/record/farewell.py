"""Whether the clients of a run that has ended have been told so."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from recast_core.files import read_text, write_atomically

NAME = "farewell"


def owe_farewell(folder: Path, run: int) -> None:
    """The run is about to end, and its clients do not know."""
    write_atomically(folder / NAME, f"{run}\n".encode())


def farewell_given(folder: Path) -> None:
    """They have been told."""
    with suppress(OSError):
        (folder / NAME).unlink(missing_ok=True)


def owed_farewell(folder: Path) -> int | None:
    """The run whose clients have yet to be told, if there is one."""
    try:
        return int(read_text(folder / NAME))
    except (OSError, ValueError):
        return None
