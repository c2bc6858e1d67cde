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

from server.exchange.pace import Pace
from server.exchange.wait import GONE_SECONDS, Presence, Question, Wait

FIRST_PAUSE = 0.01
LONGEST_PAUSE = 1.0


@dataclass
class Unread:
    """What a collector has learned beside the answers that came in time.

    Attributes:
        late: answers to questions that had been closed, each with its question.
        gone: questions whose node left before it answered.
        silent: questions that were never answered, neither in time nor late.
    """

    late: list[tuple[Question, Message]] = field(default_factory=list)
    gone: list[Question] = field(default_factory=list)
    silent: list[Question] = field(default_factory=list)


class Collector:
    """Sends questions and polls for answers; keeps looking for those that did not come in time.

    One rule for every phase: a group is closed by its quorum, by its deadline, or when the rest has
    taken a multiple of the others' time. Whoever has not answered by then is asked again, but is
    not waited for before it has answered, late or in time.
    """

    def __init__(
        self,
        deadline: float,
        quorum: int | float = 1.0,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
        lag: float = 0.0,
    ) -> None:
        """Wait at most ``deadline`` seconds for each ``ask``.

        Args:
            deadline: seconds; a late answer is looked for during as many again, and then some.
            quorum: useful answers that close a group: a count, or a share (float) of those asked.
            clock: seconds, monotonic.
            sleep: waits seconds.
            lag: how many times as long as the others a node may take; 0 for the deadline alone.
        """
        self._deadline = deadline
        self._quorum = quorum
        self._clock = clock
        self._sleep = sleep
        self._pace = Pace(deadline, lag)
        self._asked: dict[str, Question] = {}
        self._late: dict[str, Question] = {}
        # Of those that are late, whose time was over: the time that they had.
        self._missed: dict[str, float] = {}
        self._unread = Unread()

    @property
    def overdue(self) -> frozenset[int]:
        """The nodes that are asked, but not waited for."""
        return frozenset(self._pace.overdue)

    @property
    def returning(self) -> frozenset[int]:
        """Those of them that have answered since they were late."""
        return self._pace.returning

    def question(self, reply: Message) -> Question | None:
        """The question of the last ``ask`` that ``reply`` answers."""
        return self._asked.get(reply.metadata.reply_to_message_id)

    def take_unread(self) -> Unread:
        """What came late, who left and who has kept silent, since this was last called."""
        unread, self._unread = self._unread, Unread()
        return unread

    def waiting(self, kind: str) -> set[int]:
        """The nodes that still owe an answer to a closed question of this message type."""
        now = self._clock()
        self._drop(name for name, late in self._late.items() if late.forgotten <= now)
        return {question.node for question in self._late.values() if question.kind == kind}

    def give_up(self) -> None:
        """Nobody looks for late answers any more: what was missed has not been answered."""
        self._drop(self._late)

    def ask(
        self,
        grid: Grid,
        messages: Iterable[Message],
        useful: Callable[[Message], bool] | None = None,
        hurry: bool = True,
        enough: int | None = None,
    ) -> list[Message]:
        """Send ``messages``, wait, and return the answers that came in time.

        Args:
            grid: what carries messages.
            messages: at most one a node and group.
            useful: whether an answer counts towards the quorum; ``None`` waits for all answers.
            hurry: whether a quorum closes a group at once, and not a little later.
            enough: useful answers that close a group here; the run's quorum where ``None``.
        """
        began = self._clock()
        ends = began + self._deadline
        self._asked = self._push(grid, messages, ends + self._deadline + GONE_SECONDS)
        open_ = dict(self._asked)
        wait = Wait(self._asked.values(), self._pace, began, self._needed(enough), hurry=hurry)
        replies: list[Message] = []
        presence = Presence(grid, self._clock)
        pause = FIRST_PAUSE
        while open_:
            for reply in grid.pull_messages([*open_, *self._late]):
                name, now = reply.metadata.reply_to_message_id, self._clock()
                if name in self._late:
                    self._take_late(name, reply, now)
                    continue
                replies.append(reply)
                question = self._asked.get(name)
                if open_.pop(name, None) and question:
                    wait.answered(question, now, useful=useful is None or useful(reply))
            now = self._clock()
            for name, question in list(open_.items()):
                if presence.lost(question.node):
                    self._unread.gone.append(open_.pop(name))
                elif useful is not None and wait.has_quorum(question, now):
                    self._late[name] = open_.pop(name)
                elif wait.is_over(question, now) or ends <= now:
                    self._miss(name, open_.pop(name), wait.limit(question))
            if not open_:
                break
            if not wait.waits_for(open_.values()):
                for name in list(open_):
                    question = open_.pop(name)
                    self._miss(name, question, wait.limit(question))
                break
            self._sleep(min(pause, max(0.0, ends - now)))
            pause = min(1.5 * pause, LONGEST_PAUSE)
        self._keep_newest()
        return replies

    def _take_late(self, name: str, reply: Message, now: float) -> None:
        question, limit = self._late.pop(name), self._missed.pop(name, None)
        if limit is not None:
            self._pace.answered_late(question.node, now - question.asked, limit)
        self._unread.late.append((question, reply))

    def _miss(self, name: str, question: Question, limit: float) -> None:
        """The time for a question is over; its answer may still come."""
        self._late[name], self._missed[name] = question, limit
        self._pace.missed([question.node])

    def _keep_newest(self) -> None:
        """Look for one late answer of a node and kind: others would pile up where none comes."""
        newest = {(late.node, late.kind): name for name, late in self._late.items()}
        self._drop(set(self._late) - set(newest.values()))

    def _drop(self, names: Iterable[str]) -> None:
        """Look for these late answers no longer."""
        for name in list(names):
            question = self._late.pop(name)
            if self._missed.pop(name, None) is not None:
                self._unread.silent.append(question)

    def _push(
        self, grid: Grid, messages: Iterable[Message], forgotten: float
    ) -> dict[str, Question]:
        messages = list(messages)
        if not messages:
            return {}
        names = list(grid.push_messages(messages))
        if len(names) != len(messages):  # a grid may leave out what it could not send
            names = [message.metadata.message_id for message in messages]
        now = self._clock()
        return {
            name: Question(
                message.metadata.dst_node_id,
                message.metadata.group_id,
                message.metadata.message_type,
                forgotten,
                now,
            )
            for name, message in zip(names, messages, strict=True)
            if name
        }

    def _needed(self, enough: int | None) -> dict[str, int]:
        if enough is not None:
            return dict.fromkeys((question.group for question in self._asked.values()), enough)
        counts = Counter(question.group for question in self._asked.values())
        return {
            group: min(count, self._quorum)
            if isinstance(self._quorum, int)
            else math.ceil(count * self._quorum - 1e-9)
            for group, count in counts.items()
        }
