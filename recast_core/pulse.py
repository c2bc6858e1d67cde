"""How far long work is: its loops say so after each batch, and learn there that they must end."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol


class Abandoned(BaseException):
    """Raised in a thread whose result nobody waits for any more."""


class Listener(Protocol):
    """Is told how far work is. Called from whichever thread works, so it must be quick."""

    def about(self, task: str, round_: int) -> None:
        """What follows is of this task and round."""

    def began(self, what: str, images: int) -> None:
        """Work began that shows ``images`` images to a network; 0 where nobody knows how many."""

    def advanced(self, images: int) -> None:
        """So many more have been shown."""


@dataclass(frozen=True)
class Taught:
    """What a client's training of a round came to: what it may keep to itself.

    Attributes:
        client: its number.
        task: its number.
        name: of the task.
        round: of the task.
        loss: mean of the last pass.
    """

    client: int
    task: int
    name: str
    round: int
    loss: float


Hear = Callable[[Taught], None]
_hearers: list[tuple[int | None, Hear]] = []
_listeners: list[Listener] = []
_own = threading.local()


@contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """Tell ``listener`` of all work in this process."""
    _listeners.append(listener)
    try:
        yield
    finally:
        _listeners.remove(listener)


@contextmanager
def hearing(hear: Hear, *, everywhere: bool) -> Iterator[None]:
    """Call ``hear`` after each client's training, of this thread or ``everywhere`` here."""
    entry = None if everywhere else threading.get_ident(), hear
    _hearers.append(entry)
    try:
        yield
    finally:
        _hearers.remove(entry)


def learned(taught: Taught) -> None:
    """Say within this process what a client's training came to."""
    here = threading.get_ident()
    for thread, hear in list(_hearers):
        if thread in (None, here):
            hear(taught)


@contextmanager
def ending_with(stop: threading.Event) -> Iterator[None]:
    """Let this thread's work end at its next batch once ``stop`` is set."""
    before, _own.stop = getattr(_own, "stop", None), stop
    try:
        yield
    finally:
        _own.stop = before


def about(task: str, round_: int) -> None:
    """Say what the work that follows is for."""
    for listener in _listeners:
        listener.about(task, round_)


def begin(what: str, images: int = 0) -> None:
    """Say that work begins, and how many images it will show; see ``Listener``."""
    for listener in _listeners:
        listener.began(what, images)


def advance(images: int) -> None:
    """Say that a batch is done.

    Raises:
        Abandoned: the thread was told to end.
    """
    stop = getattr(_own, "stop", None)
    if stop is not None and stop.is_set():
        raise Abandoned
    for listener in _listeners:
        listener.advanced(images)
