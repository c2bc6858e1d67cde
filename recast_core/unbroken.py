"""What an interrupt must not break: it is raised when that is over."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import FrameType
from typing import Any

_NUMBERS = (signal.SIGTERM, signal.SIGINT)


@dataclass
class _Held:
    """The main thread's signals.

    Attributes:
        depth: how many contexts of what must not be broken it is in.
        signals: that came meanwhile.
        handlers: what hears them otherwise.
    """

    depth: int = 0
    signals: list[int] = field(default_factory=list)
    handlers: dict[int, Callable[[int, FrameType | None], Any]] = field(default_factory=dict)


_held = _Held()


@contextmanager
def unbroken() -> Iterator[None]:
    """Hold interrupts back until the outermost of these contexts ends.

    A library that is interrupted as it takes a connection may leave it in a transaction that nobody
    ends, which keeps out whoever records how the run ended; torch takes an interrupt in the middle
    of reading a tensor for an object without a shape, and loses it.
    """
    if not _in_main_thread():
        yield
        return
    _held.depth += 1
    try:
        if _held.depth == 1:
            _listen()
        yield
    finally:
        _held.depth -= 1
        if not _held.depth:
            for number, handler in _held.handlers.items():
                if signal.getsignal(number) is _note:
                    signal.signal(number, handler)
            heed()


def heed() -> None:
    """Raise what has been held back, where that breaks nothing, as while we wait."""
    if _held.signals and _in_main_thread():
        number = _held.signals[0]
        _held.signals.clear()
        _held.handlers[number](number, None)


def _listen() -> None:
    for number in _NUMBERS:
        handler = signal.getsignal(number)
        if callable(handler) and handler is not _note:
            _held.handlers[number] = handler
            signal.signal(number, _note)


def _note(number: int, frame: FrameType | None) -> None:
    """Hear a signal; at once where it comes as the last context ends."""
    if _held.depth:
        _held.signals.append(number)
    else:
        _held.handlers[number](number, frame)


def _in_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()
