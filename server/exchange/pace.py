"""How long answers usually take, and which nodes nobody waits for any more."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterable, Sequence
from statistics import median

# A node is waited for at least so long once half of those asked have answered: what takes
# milliseconds elsewhere may take seconds where something else runs too.
LEAST_SECONDS = 20.0
# The same where nobody has answered yet, but others have been asked the same before. A greeting is
# repeated without harm; a round that nobody answers may be the network's doing.
LEAST_ALONE = {"query.hello": 2.0, "query.bank": 5.0}
# How many times as long as others took a newcomer may let them wait: they could be at work.
GREETING_LAG = 3.0
LEAST_ALONE_OTHERWISE = 120.0
REMEMBERED = 64


class Pace:
    """Decides when waiting for the rest is over: a multiple of the others' time."""

    def __init__(self, deadline: float, lag: float) -> None:
        """Wait at most ``deadline`` seconds, and ``lag`` times as long as the others took.

        Args:
            deadline: seconds.
            lag: times; 0 for the deadline alone.
        """
        self._deadline, self._lag = deadline, lag
        self._usual: defaultdict[str, deque[float]] = defaultdict(lambda: deque(maxlen=REMEMBERED))
        self.overdue: set[int] = set()

    def limit(self, kind: str, about: str, asked: int, taken: Sequence[float]) -> float:
        """Seconds after which the rest is not waited for.

        Args:
            kind: message type.
            about: what else makes answers comparable, as a task's name.
            asked: how many nodes were.
            taken: seconds that those took who have answered.
        """
        if not self._lag or not asked:
            return self._deadline
        usual = self._usual.get(f"{kind}/{about}")
        if taken and 2 * len(taken) >= asked:
            limit = max(LEAST_SECONDS, self._lag * median(taken))
        elif usual:
            least = LEAST_ALONE.get(kind, LEAST_ALONE_OTHERWISE)
            lag = min(self._lag, GREETING_LAG) if kind in LEAST_ALONE else self._lag
            limit = max(least, lag * median(usual))
        else:
            limit = self._deadline
        return min(limit, self._deadline)

    def answered(self, node: int, kind: str, about: str, seconds: float) -> None:
        """A node has answered in time: it is waited for again."""
        self._usual[f"{kind}/{about}"].append(seconds)
        self.overdue.discard(node)

    def answered_late(self, node: int, seconds: float, limit: float) -> None:
        """A node has answered when nobody waited; one that is soon enough is waited for again."""
        if seconds <= limit:
            self.overdue.discard(node)

    def missed(self, nodes: Iterable[int]) -> None:
        """These have not answered in time: they are asked again, but not waited for."""
        self.overdue.update(nodes)
