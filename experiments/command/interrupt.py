"""Ctrl-C is acknowledged at once, also while one long product keeps Python from running."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

INTERRUPTED = 130
_FIRST = "recast: stopping at the next batch (Ctrl-C again ends at once)"
_SECOND = "recast: ended at once; rounds that had finished are in the registry"
_SHOW_CURSOR = "\x1b[?25h"


@contextmanager
def acknowledged() -> Iterator[None]:
    """Say that Ctrl-C was heard; at the second, end the process.

    The interpreter's own handler runs between two instructions of the main thread, which may be
    seconds away. What it writes to a pipe is read by a thread.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    before = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    watcher = threading.Thread(target=_watch, args=(reading,), name="recast-ctrl-c", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)
        os.close(writing)
        watcher.join(1)
        os.close(reading)


def ends_with(code: object) -> None:
    """Let a signal end the process at once with the code that it has come to.

    What is left to do is Python's own, which would have an interrupt raise where nobody catches it.
    """
    if threading.current_thread() is not threading.main_thread():
        return
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: os._exit(code if isinstance(code, int) else 0))


def _watch(reading: int) -> None:
    """Speak of each interrupt until the other end is closed."""
    heard = 0
    while numbers := os.read(reading, 64):
        for number in numbers:
            if number != signal.SIGINT:
                continue
            heard += 1
            _say(_FIRST if heard == 1 else _SECOND)
            if heard > 1:
                os._exit(INTERRUPTED)


def _say(text: str) -> None:
    """Write past whatever stream is being written to: a lock may be held by who was interrupted."""
    line = f"{text}\n"
    if os.isatty(2):
        # The terminal has just shown ^C, and a live view may have hidden its cursor.
        line = f"\r\n{_SHOW_CURSOR}{line}"
    try:
        os.write(2, line.encode(getattr(sys.stderr, "encoding", None) or "utf-8", "replace"))
    except OSError:
        return
