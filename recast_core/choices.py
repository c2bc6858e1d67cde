"""What is said of a name that nothing has."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence


def unknown(what: str, name: str, choices: Sequence[str], also: Iterable[str] = ()) -> str:
    """One line: the choices, and one that is meant where one is near.

    Args:
        what: kind of thing the name is of.
        name: that nothing has.
        choices: the names that there are.
        also: short forms that are not listed, but may be meant.
    """
    near = difflib.get_close_matches(name, [*choices, *also], n=1)
    hint = f" (did you mean {near[0]}?)" if near else ""
    return f"unknown {what} {name!r}: choose {', '.join(choices)}{hint}"
