"""Messages out and replies in, each counted in the ledger as it passes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol, runtime_checkable

from flwr.app import Message
from google.protobuf.message import DecodeError

from protos import recast_v1_pb2 as pb
from protos.content import from_content, letters, to_content
from recast_core.text import plain
from server.exchange.bytes_of import parts_down, parts_up
from server.exchange.carried import Carrying
from server.exchange.collect import Collector
from server.exchange.notices import Noticing
from server.exchange.observer import LOST, Observer
from server.exchange.slices import Immediate
from server.exchange.wait import Question
from server.record.ledger import Ledger
from server.record.rows import Direction, Kind, LedgerRow, Refusal

# An answer carries at most a few hundred numbers; whatever is larger is not one of ours, unless
# the caller expects it.
MAX_REPLY_BYTES = 1 << 16
# A node that answers so has lost what it was told; it is greeted again.
FORGETFUL = frozenset({"bank-missing", "bank-mismatch", "unknown-task"})
# Flower's codes for an answer that will not come: the node is away, or the message expired.
UNAVAILABLE = frozenset({3, 4, 5})
GREETINGS = frozenset({"query.hello", "query.bank"})
MESSAGE_TYPES = {
    "hello": "query.hello",
    "bank": "query.bank",
    "train": "train",
    "evaluate": "evaluate",
    "head": "query.head",
    "keys": "query.keys",
    "open": "query.open",
}


@dataclass(frozen=True)
class Topic:
    """What a message is about, for the ledger: a task's name (or None) and a round (or 0)."""

    task: str | None = None
    round: int = 0

    @property
    def group(self) -> str:
        """The topic as the group id of its messages; a task's name has no slash."""
        return f"{self.task or ''}/{self.round}"

    @classmethod
    def of(cls, question: Question) -> Topic:
        """The topic of a question that this server sent."""
        return _topic(question.group)


@lru_cache(maxsize=64)
def _topic(group: str) -> Topic:
    task, _, round_ = group.rpartition("/")
    return Topic(task or None, int(round_))


@dataclass(frozen=True)
class Reply:
    """A well-formed reply: from which node, about what, and its content."""

    node: int
    topic: Topic
    body: pb.ToServer


@runtime_checkable
class Listening(Protocol):
    """A grid that refuses streams, frames or clients before any message of theirs comes here."""

    def take_refusals(self) -> list[Refusal]:
        """What it has refused since this was last called."""


@runtime_checkable
class Limited(Protocol):
    """A grid that cannot carry replies of every length.

    Attributes:
        longest_reply: in bytes.
    """

    longest_reply: int


class Traffic:
    """Counts what is sent and received, and what is refused."""

    def __init__(
        self, ledger: Ledger, observer: Observer, collector: Collector | None = None
    ) -> None:
        """Count in ``ledger``; ``collector`` knows what replies are about, where there is one."""
        self._ledger = ledger
        self._observer = observer
        self._collector = collector
        self._forgot: set[int] = set()
        # Of a bank's message, by its size: what stands before the bank itself.
        self._before: dict[int, int] = {}
        self._longest = MAX_REPLY_BYTES
        self._overdue: frozenset[int] = frozenset()

    def send(self, node: int, body: pb.ToClient, topic: Topic, grid: object = None) -> Message:
        """The Flower message that carries ``body`` to ``node``.

        What ``grid`` tells of by itself, when it hands it over, is counted then.
        """
        content = body.SerializeToString()
        which = body.WhichOneof("body")
        assert which is not None
        if isinstance(grid, Carrying) and grid.tells(MESSAGE_TYPES[which], len(content)):
            self._before[len(content)] = len(content) - len(body.bank.content)
        else:
            for kind, payload, size in parts_down(body, len(content)):
                self._count(topic, node, "down", kind, payload, size)
        return Message(to_content(content), node, MESSAGE_TYPES[which], group_id=topic.group)

    def send_all(
        self, nodes: Iterable[int], body: pb.ToClient, topic: Topic, grid: object
    ) -> Iterator[Message]:
        """As ``send`` to each node; within this process what all have in common is done once."""
        if not isinstance(grid, Immediate):
            yield from (self.send(node, body, topic) for node in nodes)
            return
        content, which = body.SerializeToString(), body.WhichOneof("body")
        assert which is not None
        parts = list(parts_down(body, len(content)))
        for letter in letters(content, nodes, MESSAGE_TYPES[which], topic.group):
            for kind, payload, size in parts:
                self._count(topic, letter.metadata.dst_node_id, "down", kind, payload, size)
            yield letter

    def receive(
        self, replies: Iterable[Message], topic: Topic, expected: str, limit: int = 0
    ) -> Iterator[Reply]:
        """The well-formed replies of kind ``expected``; all others are refused.

        A second reply to one message is refused as replayed, one to a question that had been closed
        as late.

        Args:
            replies: to the questions asked last.
            topic: of replies whose question is unknown.
            expected: the field of ``ToServer``.
            limit: bytes that a reply may have; ``MAX_REPLY_BYTES`` where that is more.
        """
        limit = max(limit, MAX_REPLY_BYTES)
        self._longest = max(limit, self._longest)
        self._refuse_unread()
        answered: set[tuple[int, str]] = set()
        for reply in replies:
            node, about = reply.metadata.src_node_id, topic
            question = self._collector.question(reply) if self._collector else None
            if question is not None:
                about = Topic.of(question)
                # What Flower answers for a node that is away does not bear that node's id.
                node = question.node if reply.has_error() else node
            message = self._parse(node, about, reply, limit)
            if message is None:
                continue
            key = node, reply.metadata.reply_to_message_id
            which = message.WhichOneof("body")
            if key in answered:
                self.refuse(node, about, "replayed", "a second reply to one message")
            elif which == "refusal":
                answered.add(key)
                self.refuse(node, about, code(message.refusal.reason), message.refusal.detail)
            elif which != expected:
                self.refuse(node, about, "malformed", f"{which} came instead of {expected}")
            else:
                answered.add(key)
                yield Reply(node, about, message)

    def take_from(self, grid: object) -> None:
        """Enter in the ledger what a grid has refused by itself, and what it has handed over."""
        if isinstance(grid, Carrying):
            for part in grid.take_carried():
                bank = max(0, part.end - max(part.start, self._before.get(part.size, 0)))
                self._count(Topic(), part.node, "down", "bank", bank, part.end - part.start)
        if isinstance(grid, Listening):
            for refusal in grid.take_refusals():
                self._ledger.refuse(refusal)

    def give_up(self) -> None:
        """The run ends: enter in the ledger who has not answered."""
        if self._collector is not None:
            self._collector.give_up()
        self._refuse_unread()

    def take_forgetful(self) -> set[int]:
        """The nodes that have lost what they were told, since this was last called."""
        forgot, self._forgot = self._forgot, set()
        return forgot

    def _refuse_unread(self) -> None:
        if self._collector is None:
            return
        unread = self._collector.take_unread()
        for question, reply in unread.late:
            topic = Topic.of(question)
            if self._parse(question.node, topic, reply, self._longest) is not None:
                detail = "the answer came after the round had been closed"
                self.refuse(question.node, topic, "late", detail)
        for question in unread.gone:
            self.refuse(question.node, Topic.of(question), "gone", "left before it answered")
        for question in unread.silent:
            # A greeting that was not answered has been told by whoever greeted.
            if question.kind not in GREETINGS:
                what = question.kind.rpartition(".")[2]
                self.refuse(question.node, Topic.of(question), "silent", f"no answer to {what}")
        overdue = self._collector.overdue
        if overdue != self._overdue:
            self._overdue = overdue
            self._observer.overdue([str(node) for node in overdue])

    def _parse(self, node: int, topic: Topic, reply: Message, limit: int) -> pb.ToServer | None:
        """The reply's message, counted; ``None`` where it holds none, which is refused."""
        if reply.has_error():
            code = reply.error.code
            reason = "gone" if code in UNAVAILABLE else LOST.get(code, "client-error")
            self.refuse(node, topic, reason, reply.error.reason or "no reason given")
            return None
        body = from_content(reply)
        if body is None:
            self.refuse(node, topic, "malformed", "the reply holds no message of ours")
            return None
        if len(body) > limit:
            self._count(topic, node, "up", "control", 0, len(body))
            self.refuse(node, topic, "oversize", f"{len(body)} bytes")
            return None
        try:
            message = pb.ToServer.FromString(body)
        except DecodeError:
            self._count(topic, node, "up", "control", 0, len(body))
            self.refuse(node, topic, "malformed", f"{len(body)} bytes that do not parse")
            return None
        for kind, payload, size in parts_up(message, len(body)):
            self._count(topic, node, "up", kind, payload, size)
        return message

    def refuse(self, node: int, topic: Topic, reason: str, detail: str) -> None:
        """Leave a node or its answer out: counted, logged, and of no other effect."""
        line = plain(detail)
        if reason in FORGETFUL:
            self._forgot.add(node)
        self._ledger.refuse(Refusal(str(node), topic.task, topic.round, reason, line))
        self._observer.refused(str(node), reason, line)

    def tell(self, grid: object, node: int, text: str) -> None:
        """Have a node's own log say something, where the grid can; counted as what is sent."""
        if isinstance(grid, Noticing) and (size := grid.notify(node, plain(text))):
            self._count(Topic(), node, "down", "control", 0, size)

    def _count(
        self, topic: Topic, node: int, direction: Direction, kind: Kind, payload: int, size: int
    ) -> None:
        about = topic.task, topic.round, str(node), direction, kind
        self._ledger.add(LedgerRow(*about, "payload", payload), LedgerRow(*about, "message", size))


def is_answer(message: Message, expected: str, limit: int = 0) -> bool:
    """Whether a reply looks like an answer of kind ``expected`` rather than a refusal or error."""
    body = None if message.has_error() else from_content(message)
    if body is None or len(body) > max(limit, MAX_REPLY_BYTES):
        return False
    try:
        return bool(pb.ToServer.FromString(body).WhichOneof("body") == expected)
    except DecodeError:
        return False


def code(reason: int) -> str:
    """The ledger's code of a refusal; enums of proto3 are open, so any number may come."""
    if reason not in pb.Refusal.Reason.values():
        return "malformed"
    name = pb.Refusal.Reason.Name(reason)
    return name.removeprefix("REASON_").lower().replace("_", "-")
