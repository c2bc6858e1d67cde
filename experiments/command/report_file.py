"""Write a command's report where ``--json`` says."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import click


def write(path: Path | None, report: dict[str, Any]) -> None:
    """Write ``report`` as JSON to a file, or to standard output where the path is ``-``."""
    if path is None:
        return
    text = json.dumps(report, indent=2) + "\n"
    if str(path) == "-":
        click.echo(text, nl=False)
    else:
        from recast_core.files import write_atomically

        write_atomically(path, text.encode())


def report(path: Path | None, command: Callable[[], dict[str, Any]]) -> None:
    """Run ``command`` and write its report; its prints make way for JSON on standard output."""
    if str(path) != "-":
        write(path, command())
        return
    with redirect_stdout(sys.stderr):
        found = command()
    write(path, found)
