"""Ask nodes and collect their answers: up to a deadline, or until enough have come.

Works on every grid. One that answers while it is being asked is polled once.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from flwr.app import Message
from flwr.serverapp import Grid

FIRST_PAUSE = 0.01
LONGEST_PAUSE = 1.0
# Looking for nodes costs a request; a node that is away for this long has lost the question too.
LOOK_SECONDS = 2.0
GONE_SECONDS = 10.0


@dataclass(frozen=True)
class Question:
    """A message that was sent: to whom, about what (``group``), until when an answer counts late.

    Attributes:
        node: Flower's node id.
        group: the message's group id; a quorum is one of each group.
        kind: the message type.
        forgotten: by the collector's clock, when a late answer is no longer looked for.
    """

    node: int
    group: str
    kind: str
    forgotten: float


@dataclass
class Unread:
    """What a collector has learned beside the answers that came in time.

    Attributes:
        late: answers to questions that had been closed, each with its question.
        gone: questions whose node left before it answered.
    """

    late: list[tuple[Question, Message]] = field(default_factory=list)
    gone: list[Question] = field(default_factory=list)


class Collector:
    """Sends questions and polls for answers; keeps looking for those that did not come in time."""

    def __init__(
        self,
        deadline: float,
        quorum: int | float = 1.0,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """Wait at most ``deadline`` seconds for each ``ask``.

        Args:
            deadline: seconds; a late answer is looked for during as many again, and then some.
            quorum: useful answers that close a group: a count, or a share (float) of those asked.
            clock: seconds, monotonic.
            sleep: waits seconds.
        """
        self._deadline = deadline
        self._quorum = quorum
        self._clock = clock
        self._sleep = sleep
        self._asked: dict[str, Question] = {}
        self._late: dict[str, Question] = {}
        self._unread = Unread()

    def question(self, reply: Message) -> Question | None:
        """The question of the last ``ask`` that ``reply`` answers."""
        return self._asked.get(reply.metadata.reply_to_message_id)

    def take_unread(self) -> Unread:
        """What came late and who left, since this was last called."""
        unread, self._unread = self._unread, Unread()
        return unread

    def waiting(self, kind: str) -> set[int]:
        """The nodes that still owe an answer to a closed question of this message type."""
        now = self._clock()
        self._late = {name: late for name, late in self._late.items() if late.forgotten > now}
        return {question.node for question in self._late.values() if question.kind == kind}

    def ask(
        self,
        grid: Grid,
        messages: Iterable[Message],
        useful: Callable[[Message], bool] | None = None,
    ) -> list[Message]:
        """Send ``messages``, wait, and return the answers that came in time.

        Args:
            grid: what carries messages.
            messages: at most one a node and group.
            useful: whether an answer counts towards the quorum; ``None`` waits for all answers.
        """
        ends = self._clock() + self._deadline
        self._asked = self._push(grid, messages, ends + self._deadline + GONE_SECONDS)
        open_ = dict(self._asked)
        needed = self._needed(open_.values()) if useful else {}
        replies: list[Message] = []
        presence = _Presence(grid, self._clock)
        pause = FIRST_PAUSE
        while open_:
            for reply in grid.pull_messages([*open_, *self._late]):
                name = reply.metadata.reply_to_message_id
                if name in self._late:
                    self._unread.late.append((self._late.pop(name), reply))
                    continue
                replies.append(reply)
                open_.pop(name, None)
                question = self._asked.get(name)
                if question and useful and useful(reply):
                    needed[question.group] -= 1
            for name, question in list(open_.items()):
                if needed.get(question.group, 1) <= 0:
                    self._late[name] = open_.pop(name)
                elif presence.lost(question.node):
                    self._unread.gone.append(open_.pop(name))
            left = ends - self._clock()
            if not open_ or left <= 0:
                break
            self._sleep(min(pause, left))
            pause = min(1.5 * pause, LONGEST_PAUSE)
        self._late |= open_
        self._keep_newest()
        return replies

    def _keep_newest(self) -> None:
        """Look for one late answer of a node and kind: others would pile up where none comes."""
        newest = {(late.node, late.kind): name for name, late in self._late.items()}
        self._late = {name: self._late[name] for name in newest.values()}

    def _push(
        self, grid: Grid, messages: Iterable[Message], forgotten: float
    ) -> dict[str, Question]:
        messages = list(messages)
        if not messages:
            return {}
        names = list(grid.push_messages(messages))
        if len(names) != len(messages):  # a grid may leave out what it could not send
            names = [message.metadata.message_id for message in messages]
        return {
            name: Question(
                message.metadata.dst_node_id,
                message.metadata.group_id,
                message.metadata.message_type,
                forgotten,
            )
            for name, message in zip(names, messages, strict=True)
            if name
        }

    def _needed(self, questions: Iterable[Question]) -> dict[str, int]:
        counts = Counter(question.group for question in questions)
        return {
            group: min(count, self._quorum)
            if isinstance(self._quorum, int)
            else math.ceil(count * self._quorum - 1e-9)
            for group, count in counts.items()
        }


class _Presence:
    """Which nodes have been away from a grid for some time."""

    def __init__(self, grid: Grid, clock: Callable[[], float]) -> None:
        self._grid = grid
        self._clock = clock
        self._looked = clock()
        self._present: set[int] | None = None
        self._seen: dict[int, float] = {}

    def lost(self, node: int) -> bool:
        now = self._clock()
        if now - self._looked >= LOOK_SECONDS:
            self._looked, self._present = now, set(self._grid.get_node_ids())
        if self._present is None or node in self._present:
            self._seen[node] = now
        return now - self._seen.setdefault(node, now) >= GONE_SECONDS
