"""The rules by name that make a task's next coefficients of a round's contributions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from recast_core.choices import unknown
from recast_core.errors import RecastError
from server.rounds.contribution import Aggregate, Contribution, Shares
from server.rounds.rules.clipped import clipped_mean, clipped_shares
from server.rounds.rules.geometric import geometric_median
from server.rounds.rules.krum import krum, krum_shares, multi_krum, multi_krum_shares
from server.rounds.rules.mean import average
from server.rounds.rules.median import coordinate_median
from server.rounds.rules.trimmed import trimmed_mean

__all__ = ["Contribution", "aggregation", "average", "register_aggregation", "shares", "whole"]


def whole(contributions: Sequence[Contribution]) -> list[float]:
    """Every contribution counts."""
    return [1.0] * len(contributions)


@dataclass(frozen=True)
class _Rule:
    """A rule, and what it lets count of each contribution."""

    aggregate: Aggregate
    shares: Shares = whole


_RULES: dict[str, _Rule] = {
    "clipped": _Rule(clipped_mean, clipped_shares),
    "mean": _Rule(average),
    "median": _Rule(coordinate_median),
    "trimmed": _Rule(trimmed_mean),
    "geometric-median": _Rule(geometric_median),
    "krum": _Rule(krum, krum_shares),
    "multi-krum": _Rule(multi_krum, multi_krum_shares),
}


def register_aggregation(name: str, rule: Aggregate, shares: Shares = whole) -> None:
    """Let the setting ``aggregation`` name ``rule``.

    Args:
        name: of the rule.
        rule: from the vector that was broadcast and the contributions to the next one.
        shares: how much of each contribution it lets count, for the report; all where not given.

    Raises:
        RecastError: another rule has the name.
    """
    if _RULES.setdefault(name, _Rule(rule, shares)).aggregate is not rule:
        raise RecastError(f"aggregation {name!r} is registered already: give another name")


def forget_aggregation(name: str) -> None:
    """Let another rule have the name."""
    del _RULES[name]


def aggregation(name: str) -> Aggregate:
    """The rule of this name.

    Raises:
        RecastError: no such rule; offers a near one.
    """
    return _rule(name).aggregate


def shares(name: str) -> Shares:
    """What the rule of this name lets count of each contribution.

    Raises:
        RecastError: no such rule; offers a near one.
    """
    return _rule(name).shares


def _rule(name: str) -> _Rule:
    if name not in _RULES:
        raise RecastError(unknown("aggregation", name, [*_RULES]))
    return _RULES[name]
