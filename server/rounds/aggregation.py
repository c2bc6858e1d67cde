"""Aggregate the coefficients of one task; the default is FedAvg (McMahan et al., 2017)."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from recast_core.errors import RecastError
from recast_core.wire.codec import Vector


@dataclass(frozen=True, eq=False)
class Contribution:
    """What one client adds to a round of one task.

    Attributes:
        offsets: from the broadcast, float32 ``[D]``.
        examples: the weight, at least 1.
    """

    offsets: Vector
    examples: int


# From the vector that was broadcast and what came back to the next one, both float32 ``[D]``.
# Whatever the order of arrival, the same contributions must give the same bits.
Aggregate = Callable[[Vector, Sequence[Contribution]], Vector]


def average(start: Vector, contributions: Sequence[Contribution]) -> Vector:
    """``start`` moved by the mean offset, weighted by examples: float32 ``[D]``.

    Bit-identical for any order of arrival: summed in float64, in an order that the contributions
    themselves decide.
    """
    if not contributions:
        return start.copy()
    ordered = sorted(contributions, key=lambda c: (c.examples, c.offsets.tobytes()))
    weights = np.array([c.examples for c in ordered], np.float64)
    offsets = np.stack([c.offsets for c in ordered]).astype(np.float64)
    mean = (weights[:, None] * offsets).sum(0) / weights.sum()
    return np.asarray(start + mean, np.float32)


_RULES: dict[str, Aggregate] = {"mean": average}


def register_aggregation(name: str, rule: Aggregate) -> None:
    """Let the setting ``aggregation`` name ``rule``.

    Raises:
        RecastError: another rule has the name.
    """
    if _RULES.setdefault(name, rule) is not rule:
        raise RecastError(f"aggregation {name!r} is registered already: give another name")


def forget_aggregation(name: str) -> None:
    """Let another rule have the name."""
    del _RULES[name]


def aggregation(name: str) -> Aggregate:
    """The rule of this name.

    Raises:
        RecastError: no such rule; offers a near one.
    """
    if name not in _RULES:
        near = difflib.get_close_matches(name, _RULES, n=1, cutoff=0.0)[0]
        raise RecastError(
            f"unknown aggregation {name!r}: choose {', '.join(_RULES)} (did you mean {near}?)"
        )
    return _RULES[name]
