"""What was assumed while a backbone was loaded: said once, and kept with it."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_logger = logging.getLogger("recast.backbones")
_said: set[str] = set()
_kept: ContextVar[list[str] | None] = ContextVar("kept", default=None)


def note(text: str) -> None:
    """Say ``text`` once in a process, as a warning, and keep it with the backbone being loaded."""
    kept = _kept.get()
    if kept is not None and text not in kept:
        kept.append(text)
    if text not in _said:
        _said.add(text)
        _logger.warning("recast: %s", text)


@contextmanager
def kept() -> Iterator[list[str]]:
    """The notes that are made within the block."""
    found: list[str] = []
    token = _kept.set(found)
    try:
        yield found
    finally:
        _kept.reset(token)
