"""A study as a command: what cannot be, and an interrupt, end it with one line."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

from recast_core.errors import RecastError

REFUSED, INTERRUPTED = 2, 130


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
