"""Copies of models, which may hold what cannot be copied."""

from __future__ import annotations

import copy
from typing import TypeVar

from recast_core.errors import RecastError, in_a_line

T = TypeVar("T")


def copied(thing: T, shared: dict[int, object] | None = None) -> T:
    """A deep copy of a model, or of what holds one.

    Args:
        thing: to be copied.
        shared: by id, what the copy has in common with it; a dictionary that is used up.

    Raises:
        RecastError: it holds what cannot be copied: a lock, a file, a tensor that was computed.
    """
    try:
        return copy.deepcopy(thing, shared)
    except Exception as error:  # whatever a stranger's attribute raises
        reason = in_a_line(error)
        raise RecastError(
            f"the model cannot be copied ({reason}): keep locks, files, connections and computed "
            "tensors out of its attributes"
        ) from error
