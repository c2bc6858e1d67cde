"""Write a command's report where ``--json`` says."""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any

import click


def report(
    path: Path | None, command: Callable[[], Mapping[str, Any]], output: Path | None = None
) -> None:
    """Run ``command`` and write what it returns as JSON to a file; ``-`` is standard output.

    There it is alone: whatever else the command, its libraries and its processes print goes to
    standard error. Numbers that JSON lacks (NaN, infinity) are null. Whether that file, and the
    ``output`` of the command itself, can be written is seen before the work.
    """
    from recast_core.files import check_writable, write_atomically

    for file in (path, output):
        if file is not None and str(file) != "-":
            check_writable(file)
    if path is None:
        command()
    elif str(path) == "-":
        with _aside():
            found = command()
        click.echo(_text(found), nl=False)
    else:
        write_atomically(path, _text(command()).encode())


@contextmanager
def _aside() -> Iterator[None]:
    """Send to standard error what is printed here, also by code that writes to the descriptor."""
    sys.stdout.flush()
    kept = os.dup(1)
    try:
        os.dup2(2, 1)
        with redirect_stdout(sys.stderr):
            yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)


def _text(found: Mapping[str, Any]) -> str:
    return json.dumps(_plain(found), indent=2, allow_nan=False) + "\n"


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
