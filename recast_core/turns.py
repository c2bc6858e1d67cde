"""Who changes what a model is set to, and who reads it: threads and coroutines that would meet."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Self

from recast_core.errors import RecastError


class Turns:
    """Raises where a thread's or coroutine's answer would be made with what another one set.

    A counter goes up before and after every change; a reading that sees another count at its end
    than at its start, or another than its own last change left, is no answer. Who takes turns
    under a lock of their own never meets that.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()
        # Of a thread or coroutine: coroutines of one thread are not one.
        self._own: ContextVar[int | None] = ContextVar("own", default=None)
        self._count = 0
        self._depth = 0

    @contextmanager
    def changing(self) -> Iterator[None]:
        """Around a change; another thread's waits until it is done."""
        with self._lock:
            if self._depth == 0:
                self._count += 1
            self._depth += 1
            try:
                yield
            finally:
                self._depth -= 1
                if self._depth == 0:
                    self._count += 1
                self._own.set(self._count)

    def begin(self) -> int:
        """Start reading; gives what ``end`` takes.

        Raises:
            RecastError: another one has changed what this one set, or is doing so.
        """
        count = self._count
        mine = self._own.get()
        changed = mine is not None and mine != count
        if (changed or count % 2) and not self._within():
            raise _disturbed()
        return count

    def end(self, count: int) -> None:
        """Stop reading.

        Raises:
            RecastError: another one made a change meanwhile.
        """
        if self._count != count:
            raise _disturbed()

    def _within(self) -> bool:
        """Whether this very thread is making a change."""
        if not self._lock.acquire(blocking=False):
            return False
        try:
            return self._depth > 0
        finally:
            self._lock.release()

    def __deepcopy__(self, memo: object) -> Self:
        return type(self)()

    def __reduce__(self) -> tuple[type[Self], tuple[()]]:
        return type(self), ()


def _disturbed() -> RecastError:
    return RecastError(
        "another thread or coroutine set this model to another task meanwhile: use "
        "`with tasks.use(net, NAME):` in each of them in place of activate()"
    )
