"""Who spoils hidden sums: of whom it is suspected, and who is left out for it."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence

from recast_core.classes import some
from recast_core.secure.shamir import threshold
from recast_core.text import how_many
from server.exchange.traffic import Topic
from server.record.rows import OTHERS
from server.record.suspected import suspect, suspected
from server.rounds.federation import Federation
from server.rounds.rosters import Group
from server.rounds.state import TaskState

logger = logging.getLogger("recast.server")
# The reasons of refusals after which a node is left out of a task's sums for good.
_FORGED, _SPOILS = "forged-shares", "spoils-sums"
# Of those who are complained of, in a line of log.
_NAMED = 5


class Suspects:
    """Of each task the nodes of which one has spoiled a sum, and those that are left out for it.

    Whoever has spoiled sums of one task is in no sum of another: each time it would be found out
    anew, at the cost of half the updates. Who that is is read from the registry's refusals, and of
    whom it is suspected is kept there too, so that it stays so when the server starts again.
    """

    def __init__(self, federation: Federation) -> None:
        """Take up who is suspected; who was convicted before is looked up when it is asked."""
        self._federation = federation
        self._suspects = suspected(federation.registry, federation.run)
        # How often a node of a task was suspected, and in how many sums that nothing speaks for
        # it has to be before it is not.
        self._times: Counter[tuple[int, int]] = Counter()
        self._owed: Counter[tuple[int, int]] = Counter()
        self._barred: set[int] | None = None

    def of(self, state: TaskState) -> frozenset[int]:
        """The nodes of which one has spoiled a sum of a task."""
        return self._suspects.get(state.number, frozenset())

    @property
    def barred(self) -> set[int]:
        """The nodes that are left out of the run's sums."""
        if self._barred is None:
            federation = self._federation
            self._barred = {
                int(refusal.client)
                for refusal in federation.registry.refusals(federation.run)
                if refusal.reason in (_FORGED, _SPOILS) and refusal.client != OTHERS
            }
            if self._barred:
                text = "hidden sums go on without %s that spoiled them before"
                logger.warning(text, how_many(len(self._barred), "client"))
        return self._barred

    def unreadable(
        self,
        state: TaskState,
        group: Group,
        found: Sequence[int],
        complaints: Mapping[int, bytes],
    ) -> set[int]:
        """Leave out whose sealed shares too many members could not read.

        Any other complaint is logged: who makes it lies, or who is complained of does.

        Returns:
            Where nobody is left out: who complains and of whom, of whom some lie.
        """
        of: dict[int, set[int]] = {node: set() for node in found}
        for node, content in complaints.items():
            bits = int.from_bytes(content, "little")
            for other in found:
                if bits >> group.index(other) & 1:
                    of[other].add(node)
        # More than may lie; one by itself never convicts another.
        most = max(len(group) - threshold(len(group)), 1)
        forgers = {node for node, told in of.items() if len(told) > most}
        for node in sorted(forgers):
            detail = f"{len(of[node])} members could not read what it had sealed for them"
            self._convict(state, node, _FORGED, detail)
        for node in sorted(complaints):
            told = [one for one in found if node in of[one]]
            if not forgers.intersection(told):
                self._say_unheard(state, node, told)
        if forgers:
            return set()
        return {node for other, told in of.items() if told for node in (other, *told)}

    def _say_unheard(self, state: TaskState, node: int, others: Sequence[int]) -> None:
        """Log a complaint that convicts nobody: who makes it may be the one who tells the truth."""
        names = self._federation.names
        told = some([names.get(str(one), str(one)) for one in others], _NAMED)
        logger.warning(
            "round %d of task %s: client %s says that what %s sealed for it is no share: one of "
            "them lies",
            *(state.round + 1, state.name, names.get(str(node), str(node)), told or "nobody here"),
        )

    def spoiled(self, state: TaskState, group: Group, why: str) -> None:
        """Somebody in this group sent what fits nothing: who, later groups will show."""
        suspects = (self.of(state) or frozenset(group)) & set(group) or frozenset(group)
        logger.warning(
            "round %d of task %s: a hidden sum of %d clients is spoiled: %s",
            *(state.round + 1, state.name, len(group), why),
        )
        if len(suspects) == 1:
            (node,) = suspects
            self._convict(state, node, _SPOILS, why)
            suspects = frozenset()
        for key in ((state.number, node) for node in suspects):
            self._times[key] += 1
            self._owed[key] = 2 ** (self._times[key] - 1)
        self._suspect(state, suspects)

    def clear(self, state: TaskState, group: Group, *, sure: bool) -> None:
        """A group's sum is sound, and with it those who are in it.

        Where no more shares came than the sum takes, wrong ones would not have shown. Who spoils
        only sums in which they do would be suspected anew in every other round: each time it has to
        be in twice as many of the others before it is in a sum with all.
        """
        inside = self.of(state) & set(group)
        for key in ((state.number, node) for node in inside):
            self._owed[key] = 0 if sure else self._owed[key] - 1
        self._suspect(
            state, self.of(state) - {n for n in inside if self._owed[state.number, n] < 1}
        )

    def _suspect(self, state: TaskState, suspects: frozenset[int]) -> None:
        if suspects != self.of(state):
            self._suspects[state.number] = suspects
            suspect(self._federation.registry, self._federation.run, state.number, suspects)

    def _convict(self, state: TaskState, node: int, reason: str, why: str) -> None:
        self.barred.add(node)
        self._federation.traffic.refuse(node, Topic(state.name, state.round + 1), reason, why)
