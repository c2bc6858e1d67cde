"""Why a round brought no update, and whether asking again may help."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Self

from server.exchange.observer import LOST
from server.exchange.traffic import FORGETFUL
from server.record.rows import Refusal

_TOO_SMALL = {"roster", "too-few", "least-sum"}
_PASSING = FORGETFUL | {"gone", "late", "head-missing"} | _TOO_SMALL | set(LOST.values())


@dataclass(frozen=True)
class Failure:
    """What was refused of a task in a round, silence aside."""

    refusals: Sequence[Refusal]

    @classmethod
    def of(cls, refusals: Iterable[Refusal], task: str) -> Self:
        """The part of ``refusals`` that is about a task."""
        return cls([one for one in refusals if one.task == task and one.reason != "silent"])

    @property
    def _lasting(self) -> list[Refusal]:
        return [refusal for refusal in self.refusals if refusal.reason not in _PASSING]

    def is_lasting(self, asked: Iterable[int]) -> bool:
        """Whether all who were asked would be refused again."""
        lasting = self._lasting
        return bool(lasting) and {one.client for one in lasting} >= {str(node) for node in asked}

    def reason(self, what: str, attempts: int, hidden: bool) -> str:
        """Cause and remedy, of ``what`` that was tried so often, by hidden sums or not."""
        if self.refusals:
            last = (self._lasting or self.refusals)[-1]
            return f"no update was accepted in {what} ({last.reason}: {last.detail})"
        if hidden:
            return f"too few clients took part in a hidden sum in {what}: look at the log above"
        return (
            f"no client answered in {what}, {attempts} times: raise --deadline, or look at "
            "the clients"
        )
