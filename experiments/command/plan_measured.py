"""What a study says of the methods that could train on a backbone."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from experiments.report.results import Result


@dataclass(frozen=True)
class Candidate:
    """A method as this backbone would have it.

    Attributes:
        title: for people.
        method: as results have it, without what a specification adds (``lora:4``).
        bank: as results have it.
        numbers: that an update has.
        run: what to give to ``recast simulate`` or ``recast serve``.
        heads: which heads its results must have had; empty for any.
        starts: a task may start at an earlier one, which its first updates then name.
    """

    title: str
    method: str
    bank: str
    numbers: int
    run: str
    heads: tuple[str, ...] = ()
    starts: bool = False


@dataclass(frozen=True)
class Measured:
    """What a study says of candidates for a backbone.

    Attributes:
        rows: of the study, for one backbone and label budget; empty where nothing was measured.
        same: whether that backbone is of the very size and kind.
        named: whether it is the very network, by its name.
    """

    rows: tuple[Result, ...]
    same: bool
    named: bool = False

    def of(self, candidate: Candidate, bits: int) -> tuple[Result, ...]:
        """The candidate's rows, at these bits or else at the nearest width that was measured."""
        own = [row for row in self.rows if _is_of(row, candidate)]
        if not own or not candidate.numbers:
            return tuple(own)
        nearest = min({row.bits for row in own}, key=lambda width: (abs(width - bits), width))
        return tuple(row for row in own if row.bits == nearest)


def choose_study(
    results: Sequence[Result], kind: str, parameters: int, labels: int, name: str = ""
) -> Measured:
    """Take one study, one backbone and one label budget, so that rows are comparable.

    The very network comes before one of its size and kind, that before another of its kind, a bank
    of shifts before none, of others of its kind the nearest in size, more rows before fewer; of the
    label budgets the nearest by ratio.

    Args:
        results: of all studies.
        kind: of the backbone's normalisation.
        parameters: that the backbone has.
        labels: that a fleet has; -1 for all.
        name: of the backbone, as results would have it.
    """
    same = [r for r in results if (r.kind, r.parameters) == (kind, parameters)]
    named = [r for r in same if r.backbone == name]
    pool = named or same or [r for r in results if r.kind == kind]
    if not pool:
        return Measured((), same=False)
    groups: dict[tuple[str, str], list[Result]] = {}
    for row in pool:
        groups.setdefault((row.study, row.backbone), []).append(row)

    def worth(group: list[Result]) -> tuple[bool, float, int]:
        shifts = any(row.bank == "shifts" for row in group)
        return shifts, -_apart(group[0].parameters, parameters), len(group)

    rows = max(groups.values(), key=worth)
    nearest = min({row.labels for row in rows}, key=lambda own: _apart(own, labels))
    chosen = tuple(row for row in rows if row.labels == nearest)
    return Measured(chosen, same=bool(same), named=bool(named))


def _is_of(row: Result, candidate: Candidate) -> bool:
    name = ":".join(row.method.split(":")[: 1 + candidate.method.count(":")])
    return (
        name == candidate.method
        and row.bank == candidate.bank
        and (not candidate.heads or row.head in candidate.heads)
    )


def _apart(one: int, other: int) -> float:
    """How far two label budgets are from each other; none is near no other."""
    if one == other:
        return 0.0
    if 0 in (one, other):
        return math.inf
    large = 1e9
    return abs(math.log((one if one > 0 else large) / (other if other > 0 else large)))
