"""What is logged, on standard error."""

from __future__ import annotations

import logging
import sys


class Aside(logging.Handler):
    """Prints what is logged on standard error, whatever that is by then."""

    def emit(self, record: logging.LogRecord) -> None:
        """A line; none where standard error has been closed, as at the end of a process."""
        if sys.stderr is not None and not sys.stderr.closed:
            print(self.format(record), file=sys.stderr, flush=True)
