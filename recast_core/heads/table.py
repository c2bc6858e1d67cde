"""The kinds of head by name."""

from __future__ import annotations

from collections.abc import Callable

from recast_core.choices import unknown
from recast_core.errors import RecastError
from recast_core.heads.base import HeadKind

# What a kind says of itself, which a class that only looks like one may leave at nothing.
_SAYS: dict[str, tuple[type, ...]] = {
    "name": (str,), "code": (int,),
    "travels": (bool,), "kept": (bool,), "logit_scale": (float, int),
}  # fmt: skip
_KINDS: dict[str, Callable[[], HeadKind]] = {}


def register_head(make: Callable[[], HeadKind]) -> None:
    """Let the setting ``head`` and messages name the kind of head that ``make`` makes.

    Args:
        make: the kind with its usual settings, as a class that needs no arguments is.

    Raises:
        RecastError: it does not say what a kind says of itself, the code does not fit in a byte,
            or another kind has its name or its code.
    """
    kind = make()
    for name, wanted in _SAYS.items():
        if type(value := getattr(kind, name, None)) not in wanted or value == "":
            raise RecastError(
                f"head {type(kind).__name__} has {name} {value!r}: inherit StayingHead or "
                "TravellingHead of recast_core.heads, and give it a name and a code from 128 to 255"
            )
    if not 0 <= kind.code <= 255:
        raise RecastError(f"head {kind.name!r} has code {kind.code}: give one from 128 to 255")
    for other in (known for known in _KINDS.values() if known is not make):
        taken = other()
        if kind.name == taken.name or kind.code == taken.code:
            raise RecastError(
                f"head {kind.name!r} with code {kind.code} and head {taken.name!r} with code "
                f"{taken.code} cannot be told apart: give another name and code"
            )
    _KINDS[kind.name] = make


def forget_head(name: str) -> None:
    """Let another kind have the name."""
    del _KINDS[name]


def head_names() -> tuple[str, ...]:
    """The names of all kinds."""
    return tuple(_KINDS)


def head_kind(name: str) -> HeadKind:
    """The kind of head of this name with its usual settings.

    Raises:
        RecastError: an unknown name; offers a near one.
    """
    if name not in _KINDS:
        raise RecastError(unknown("head", name, [*_KINDS]))
    return _KINDS[name]()
