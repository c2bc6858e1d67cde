"""Reading what a setting is given as text."""

from __future__ import annotations

from recast_core.errors import RecastError

Value = bool | int | float | str
WANTED = {int: "a whole number", float: "a number", bool: "true or false", str: "a text"}
_TRUTHS = {"true": True, "1": True, "false": False, "0": False}


def converted(value: Value, kind: type[Value]) -> Value:
    """``value`` as ``kind``; raises ValueError where that would change what it says."""
    if kind is bool:
        if str(value).lower() not in _TRUTHS:
            raise ValueError
        return _TRUTHS[str(value).lower()]
    if kind is int and isinstance(value, float) and not value.is_integer():
        raise ValueError
    return kind(value)


def parse_quorum(text: str) -> int | float:
    """How many updates close a round: a count (int), or a share of the clients asked (float).

    Raises:
        RecastError: neither ``all`` nor a positive count, nor a share of at most one.
    """
    word = text.strip().lower()
    try:
        if word == "all":
            return 1.0
        if word.isdecimal():
            found: int | float = int(word)
        elif word.endswith("%"):
            found = float(word[:-1]) / 100
        else:
            found = float(word)
    except ValueError:
        found = 0
    if not found > 0 or (isinstance(found, float) and found > 1):
        raise RecastError(
            f"cannot read quorum {text!r}: give all, a count such as 5, or a share such as 0.8"
        )
    return found
