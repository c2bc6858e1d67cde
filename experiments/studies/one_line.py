"""A study as a command: what cannot be, and an interrupt, end it with one line."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

from experiments.command.interrupt import INTERRUPTED
from recast_core.errors import RecastError

REFUSED = 2


def resumable(study: str, text: str | None, more: str = "") -> argparse.ArgumentParser:
    """A parser for a study that appends rows, whose help names the defaults.

    Args:
        study: its module, in ``experiments.studies``.
        text: its docstring; the first line is shown.
        more: what stands at the end, after the word on going on.
    """
    return argparse.ArgumentParser(
        prog=f"python -m experiments.studies.{study}",
        description=(text or "").partition("\n")[0],
        epilog=f"The same command goes on where it was stopped{more or '.'}",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )


def in_one_line(main: Callable[[], None]) -> None:
    """Run a study's command line.

    Raises:
        SystemExit: with 2 for a ``RecastError`` or a file that fails, with 130 for Ctrl-C; each
            with a line.
    """
    name = Path(sys.argv[0]).stem
    try:
        main()
    except RecastError as error:
        print(f"{name}: {error}", file=sys.stderr)
        sys.exit(REFUSED)
    except OSError as error:
        if error.filename is None:
            raise
        print(
            f"{name}: cannot use {error.filename} ({error.strerror}): name another", file=sys.stderr
        )
        sys.exit(REFUSED)
    except KeyboardInterrupt:
        print(f"{name}: interrupted; rows that had been written stay", file=sys.stderr)
        sys.exit(INTERRUPTED)
