"""Ctrl-C is acknowledged at once, also while one long product keeps Python from running."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # a type of the stubs alone
    from sys import UnraisableHookArgs

INTERRUPTED = 130
_FIRST = "recast: stopping at the next batch (Ctrl-C again ends at once)"
_SECOND = "recast: ended at once; rounds that had finished are in the registry"
_SHOW_CURSOR = "\x1b[?25h"
# What the watcher is told beside the numbers of signals: to end, and of a signal that was lost.
_END, _LOST = 0, 128
_AGAIN_SECONDS = 0.05


@contextmanager
def acknowledged() -> Iterator[None]:
    """Say that Ctrl-C was heard; at the second, end the process.

    The interpreter's own handler runs between two instructions of the main thread, which may be
    seconds away. What it writes to a pipe is read by a thread. An interrupt that is raised where
    nothing can catch it, as in what runs when an object is collected, is raised again.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    before, hook = signal.set_wakeup_fd(writing, warn_on_full_buffer=False), sys.unraisablehook

    def unraisable(lost: UnraisableHookArgs) -> None:
        if not issubclass(lost.exc_type, KeyboardInterrupt):
            hook(lost)
            return
        # The only other of its kind is what SIGTERM raises.
        number = signal.SIGINT if lost.exc_type is KeyboardInterrupt else signal.SIGTERM
        _write(writing, _LOST + number)

    sys.unraisablehook = unraisable
    watcher = threading.Thread(target=_watch, args=(reading,), name="recast-ctrl-c", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)
        sys.unraisablehook = hook
        _write(writing, _END)
        os.close(writing)
        watcher.join()  # what it says stands before whatever is said next
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


def _write(writing: int, number: int) -> None:
    with suppress(BlockingIOError):
        os.write(writing, bytes([number]))


def _watch(reading: int) -> None:
    """Speak of each interrupt until told to end."""
    heard = ours = 0
    while numbers := os.read(reading, 64):
        for number in numbers:
            if number == _END:
                return
            if number > _LOST:
                ours += _again(number - _LOST)
            elif number == signal.SIGINT and ours:
                ours -= 1
            elif number == signal.SIGINT:
                heard += 1
                _say(_FIRST if heard == 1 else _SECOND)
                if heard > 1:
                    os._exit(INTERRUPTED)


def _again(number: int) -> bool:
    """Signal the main thread once more; whether that will be heard as an interrupt."""
    time.sleep(_AGAIN_SECONDS)  # by then it has left where the first one was lost
    if not callable(signal.getsignal(number)):
        return False
    signal.pthread_kill(threading.main_thread().ident or 0, number)
    return number == signal.SIGINT


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
