"""Who trains a task in a round, and who is asked instead of those that failed."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence

from server.rounds.federation import sample

# A node id, and the number that the node goes by on any grid.
Able = Sequence[tuple[int, int]]


class Drawing:
    """Draws the nodes of a round; of a round that brought nothing, again without those it had."""

    def __init__(self, count: int, seed: int) -> None:
        """Draw ``count`` nodes, 0 for all.

        Args:
            count: of nodes for a task and round.
            seed: of all draws. Where clients name the number that decides, one that they do not
                know, or a client would search for numbers that are drawn always.
        """
        self._count, self._seed = count, seed
        self._failed: defaultdict[int, set[int]] = defaultdict(set)

    def draw(self, able: Able, overdue: Collection[int], task: int, round_: int) -> list[int]:
        """The nodes to ask.

        Those that would be drawn but are overdue are asked as well: they are not waited for, so
        that others take their place.
        """
        left = [entry for entry in able if entry[0] not in self._failed[task]]
        waited = [entry for entry in left if entry[0] not in overdue]
        drawn = sample(waited or left or able, self._count, self._seed, task, round_)
        beside = sample(left, self._count, self._seed, task, round_) if waited else []
        return sorted({*drawn, *(node for node in beside if node in overdue)})

    def failed(self, task: int, nodes: Iterable[int], able: Able) -> bool:
        """These have sent nothing that can be used; whether there are others to ask."""
        self._failed[task].update(nodes)
        return any(node not in self._failed[task] for node, _ in able)

    def forget(self, task: int) -> None:
        """Everybody may be drawn again."""
        self._failed.pop(task, None)
