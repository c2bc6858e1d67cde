"""Quotes in the task grammar: a path may be put in quotes, and is then taken as it stands.

A quotation mark is one where a task, its data or its path begins; anywhere else it belongs to the
text, as in ``npz:/x/it's.npz``. Within a quotation its mark is written twice.
"""

from __future__ import annotations

import re

from recast_core.errors import RecastError

_MARKS = "\"'"
_BEFORE = re.compile(r"\s*(?:[A-Za-z0-9._-]*\s*=)?\s*(?:[A-Za-z]+:)?")


def quote(text: str) -> str:
    """Put ``text`` into quotation marks; ``take_quoted`` gives it back."""
    mark = "'" if '"' in text and "'" not in text else '"'
    return mark + text.replace(mark, 2 * mark) + mark


def take_quoted(text: str) -> tuple[str, str] | None:
    """What the quotation that ``text`` begins with holds, and what follows it; ``None`` if none.

    Raises:
        RecastError: the quotation does not end.
    """
    if not text or text[0] not in _MARKS:
        return None
    end = _end(text, 0)
    mark = text[0]
    return text[1 : end - 1].replace(2 * mark, mark), text[end:]


def split_outside(text: str, separators: str) -> list[str]:
    """Split ``text`` at runs of ``separators`` that are in no quotation; empty items are left out.

    Args:
        text: several tasks.
        separators: characters.

    Raises:
        RecastError: a quotation that does not end.
    """
    items, begin, place = [], 0, 0
    while place < len(text):
        if text[place] in separators:
            items.append(text[begin:place])
            begin = place = place + 1
        elif text[place] in _MARKS and _BEFORE.fullmatch(text, begin, place):
            place = _end(text, place)
        else:
            place += 1
    items.append(text[begin:])
    return [item for item in items if item.strip()]


def _end(text: str, begin: int) -> int:
    """The place after the quotation that begins at ``begin``."""
    mark, place = text[begin], begin + 1
    while (place := text.find(mark, place)) >= 0:
        if text[place + 1 : place + 2] != mark:
            return place + 1
        place += 2
    raise RecastError(f"the quotation in {text[begin:]!r} does not end: close it with {mark}")
