"""The first line of a command that takes long to begin. No heavy imports here."""

from __future__ import annotations

import sys
from pathlib import Path

_HEAVY = "torch"


def opening(text: str, json_path: Path | None = None, *, slow: bool = True) -> None:
    """Say what begins, before the libraries that take seconds to load are loaded.

    On a terminal the line goes to standard error; elsewhere to standard output, so that an error
    stays one line of its own, and only for a command that is ``slow``. Where standard output is to
    be JSON alone, nothing is said there.
    """
    if _HEAVY in sys.modules:
        return
    if sys.stderr.isatty():
        print(f"{text} ...", file=sys.stderr, flush=True)
    elif slow and str(json_path) != "-":
        print(f"{text} ...", flush=True)
