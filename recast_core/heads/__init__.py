"""Heads: a task's classifier over the backbone's features, one kind a file.

Each kind declares what it sends (``statistics``, ``sent_bytes``); none is free but those that stay
on their client.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable

from recast_core.errors import RecastError
from recast_core.heads.base import HeadKind, Statistics, sent_bytes, sent_numbers
from recast_core.heads.linear import LocalLinear, logistic_head
from recast_core.heads.local import LocalRidge
from recast_core.heads.means import Means
from recast_core.heads.ridge import ridge_head
from recast_core.heads.ridge_sums import RidgeSums
from recast_core.heads.shared import SharedLinear, head_statistics

_KINDS: dict[str, Callable[[], HeadKind]] = {
    "local": LocalRidge,
    "linear": LocalLinear,
    "means": Means,
    "ridge": RidgeSums,
    "shared": SharedLinear,
}
HEADS = tuple(_KINDS)


def head_kind(name: str) -> HeadKind:
    """The kind of head of this name (``HEADS``) with its usual settings.

    Raises:
        RecastError: an unknown name; offers a near one.
    """
    if name not in _KINDS:
        near = difflib.get_close_matches(name, _KINDS, n=1, cutoff=0.0)[0]
        raise RecastError(
            f"unknown head {name!r}: choose {', '.join(_KINDS)} (did you mean {near}?)"
        )
    return _KINDS[name]()


__all__ = [
    "HEADS",
    "HeadKind",
    "LocalLinear",
    "LocalRidge",
    "Means",
    "RidgeSums",
    "SharedLinear",
    "Statistics",
    "head_kind",
    "head_statistics",
    "logistic_head",
    "ridge_head",
    "sent_bytes",
    "sent_numbers",
]
