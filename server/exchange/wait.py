"""When the questions of one exchange are closed: who has answered, who is gone, who is late."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from flwr.serverapp import Grid

from server.exchange.pace import Pace

# Looking for nodes costs a request; a node that is away for this long has lost the question too.
LOOK_SECONDS = 2.0
GONE_SECONDS = 10.0
# A quorum that is not in a hurry closes a group after this, or twice the time that it took.
SETTLE_SECONDS = 1.0


@dataclass(frozen=True)
class Question:
    """A message that was sent: to whom, about what (``group``), until when an answer counts late.

    Attributes:
        node: Flower's node id.
        group: the message's group id; a quorum is one of each group.
        kind: the message type.
        forgotten: by the collector's clock, when a late answer is no longer looked for.
        asked: by the same clock.
    """

    node: int
    group: str
    kind: str
    forgotten: float
    asked: float = 0.0

    @property
    def about(self) -> str:
        """What it is about, whatever the round: nodes take as long for one round as for another."""
        return self.group.rpartition("/")[0]


class Wait:
    """When the questions of one ``ask`` are closed."""

    def __init__(
        self,
        questions: Iterable[Question],
        pace: Pace,
        began: float,
        needed: dict[str, int],
        *,
        hurry: bool,
    ) -> None:
        """Begin to wait.

        Args:
            questions: that were asked.
            pace: of all exchanges.
            began: by the collector's clock.
            needed: useful answers that close a group.
            hurry: whether they close it at once.
        """
        self._pace, self._began, self._needed, self._hurry = pace, began, needed, hurry
        self._slow = frozenset(pace.overdue)
        questions = list(questions)
        self._asked = Counter(q.group for q in questions if q.node not in self._slow)
        self._all_slow = not self._asked
        self._taken: defaultdict[str, list[float]] = defaultdict(list)
        self._quorum_at: dict[str, float] = {}
        # Of a group: a median over all answers, which each of thousands of questions asks for.
        self._limits: dict[tuple[str, str], float] = {}

    def answered(self, question: Question, now: float, *, useful: bool) -> None:
        """A question has its answer; ``useful`` ones count towards the quorum."""
        seconds = now - question.asked
        self._limits.clear()
        self._pace.answered(question.node, question.kind, question.about, seconds)
        if question.node not in self._slow:
            self._taken[question.group].append(seconds)
        if useful:
            self._needed[question.group] -= 1
            if self._needed[question.group] <= 0:
                self._quorum_at.setdefault(question.group, now)

    def has_quorum(self, question: Question, now: float) -> bool:
        """Whether enough others have answered."""
        reached = self._quorum_at.get(question.group)
        if reached is None:
            return False
        settled = self._began + max(SETTLE_SECONDS, 2 * (reached - self._began))
        return self._hurry or now >= settled

    def limit(self, question: Question) -> float:
        """Seconds that its node has for the answer."""
        key = question.kind, question.group
        if key not in self._limits:
            group = question.group
            self._limits[key] = self._pace.limit(
                question.kind, question.about, self._asked[group], self._taken[group]
            )
        return self._limits[key]

    def is_over(self, question: Question, now: float) -> bool:
        """Whether its node has had its time."""
        return now - question.asked >= self.limit(question)

    def waits_for(self, questions: Iterable[Question]) -> bool:
        """Whether one of them is of a node that is waited for; where none was, all are."""
        return self._all_slow or any(question.node not in self._slow for question in questions)


class Presence:
    """Which nodes have been away from a grid for some time."""

    def __init__(self, grid: Grid, clock: Callable[[], float]) -> None:
        """Look at ``grid`` now and then, as ``clock`` goes."""
        self._grid = grid
        self._clock = clock
        self._looked = clock()
        self._present: set[int] | None = None
        self._seen: dict[int, float] = {}

    def lost(self, node: int) -> bool:
        """Whether a node has been away for long."""
        now = self._clock()
        if now - self._looked >= LOOK_SECONDS:
            self._looked, self._present = now, set(self._grid.get_node_ids())
        if self._present is None or node in self._present:
            self._seen[node] = now
        return now - self._seen.setdefault(node, now) >= GONE_SECONDS
