"""What is said of a task's images, once in a process."""

from __future__ import annotations

import logging

logger = logging.getLogger("recast.data")
_said: set[str] = set()


def say(text: str, *, warn: bool) -> None:
    """Log a line once in this process, whoever asks for the data again."""
    if text not in _said:
        _said.add(text)
        logger.log(logging.WARNING if warn else logging.INFO, "%s", text)
