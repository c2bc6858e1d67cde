"""How long answers usually take, and which nodes nobody waits for any more."""

from __future__ import annotations

from collections import Counter, defaultdict, deque
from collections.abc import Iterable, Sequence
from statistics import median

# A node is waited for at least so long once half of those asked have answered: what takes
# milliseconds elsewhere may take seconds where something else runs too.
LEAST_SECONDS = 20.0
# Where two rounds have shown what is usual: so many lags of it, and not less than so many seconds,
# so that nobody who takes 19 seconds for what takes the others 0.1 is waited for in every round.
LEAST_LAGS, LEAST_LEARNED = 3.0, 5.0
# The same where nobody has answered yet, but others have been asked the same before. A greeting is
# repeated without harm, and so is a roster; a round that nobody answers may be the network's doing.
LEAST_ALONE = {"query.hello": 2.0, "query.bank": 5.0, "query.keys": 5.0}
# How many times as long as others took a newcomer may let them wait: they could be at work.
GREETING_LAG = 3.0
LEAST_ALONE_OTHERWISE = 120.0
REMEMBERED = 64
# Whoever is silent now and then would cost everybody the wait again each time it has answered once:
# after each miss twice as many answers are wanted, and after so many in a row all is forgotten.
MOST_OWED = 64


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
        self._answers: Counter[str] = Counter()
        self.overdue: set[int] = set()
        # How often a node was waited for in vain, the answers it owes for it, and those in a row.
        self._misses: Counter[int] = Counter()
        self._owed: dict[int, int] = {}
        self._streak: Counter[int] = Counter()
        # Who has answered since, however late.
        self._heard: set[int] = set()

    @property
    def returning(self) -> frozenset[int]:
        """The nodes that are not waited for yet, and have answered since they were."""
        return frozenset(self.overdue & self._heard)

    def limit(self, kind: str, about: str, asked: int, taken: Sequence[float]) -> float:
        """Seconds after which the rest is not waited for.

        Args:
            kind: message type.
            about: what else makes answers comparable, as a task's name.
            asked: how many nodes were that are waited for.
            taken: seconds that those took who have answered.
        """
        if not self._lag or not (asked or kind in LEAST_ALONE):
            return self._deadline
        usual = self._usual.get(_comparable(kind, about))
        if taken and 2 * len(taken) >= asked:
            limit = max(self._least(kind, about, asked), self._lag * median(taken))
        elif usual:
            least = LEAST_ALONE.get(kind, LEAST_ALONE_OTHERWISE)
            lag = min(self._lag, GREETING_LAG) if kind in LEAST_ALONE else self._lag
            limit = max(least, lag * median(usual))
        else:
            limit = self._deadline
        return min(limit, self._deadline)

    def answered(self, node: int, kind: str, about: str, seconds: float) -> None:
        """A node has answered in time; one that was silent once is waited for again."""
        self._usual[_comparable(kind, about)].append(seconds)
        self._answers[_comparable(kind, about)] += 1
        self._credit(node)

    def answered_late(self, node: int, seconds: float, limit: float) -> None:
        """A node has answered when nobody waited, which counts if it was soon enough."""
        self._heard.add(node)
        if seconds <= limit:
            self._credit(node)

    def missed(self, nodes: Iterable[int]) -> None:
        """These have not answered in time: they are asked again, but not waited for."""
        for node in nodes:
            if node not in self.overdue:
                self.overdue.add(node)
                self._misses[node] += 1
            self._owed[node] = min(2 ** (self._misses[node] - 1), MOST_OWED)
            self._streak[node] = 0
            self._heard.discard(node)

    def _least(self, kind: str, about: str, asked: int) -> float:
        """Seconds that a node has in any case, once half of those asked have answered.

        Newcomers, of whom nothing is known, have all of them: the bank may come over a slow line.
        """
        key = _comparable(kind, about)
        if kind in LEAST_ALONE or self._answers[key] < 2 * asked:
            return LEAST_SECONDS
        learned = LEAST_LAGS * self._lag * median(self._usual[key])
        return min(LEAST_SECONDS, max(LEAST_LEARNED, learned))

    def _credit(self, node: int) -> None:
        if not self._misses[node]:
            return
        self._heard.add(node)
        self._streak[node] += 1
        if self._streak[node] >= self._owed[node]:
            self.overdue.discard(node)
        if self._streak[node] >= MOST_OWED:
            del self._misses[node], self._owed[node], self._streak[node]
            self._heard.discard(node)


def _comparable(kind: str, about: str) -> str:
    """What takes as long: what hangs on no images, whatever the task."""
    return kind if kind in LEAST_ALONE else f"{kind}/{about}"
