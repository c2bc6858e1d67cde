"""Heads that travel: gather what the clients tell of their features, merge it, send the head."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from flwr.app import Message
from flwr.serverapp import Grid

from protos import recast_v1_pb2 as pb
from recast_core.classes import Names
from recast_core.errors import RecastError
from recast_core.heads import HeadKind, Statistics, head_kind
from recast_core.start import Start
from recast_core.wire.head_bytes import code_of, pack_head, statistics_length
from recast_core.wire.messages import BROADCAST_BITS, RefusedError, to_broadcast
from server.exchange.collect import Collector
from server.exchange.share import Share, agreed_classes
from server.exchange.traffic import Topic, Traffic, is_answer
from server.rounds.checks import check_head
from server.rounds.earlier import EarlierHead
from server.rounds.near import trusted_statistics
from server.rounds.state import TaskState
from server.rounds.weights import limited_statistics

logger = logging.getLogger("recast.server")
ClassesOf = Callable[[str], Names | None]
Nodes = Mapping[int, Mapping[int, Share]]


@dataclass(frozen=True)
class Exchange:
    """What a phase needs to ask clients for something: what vectors count from, and the way."""

    start: Start
    traffic: Traffic
    collector: Collector


@dataclass(frozen=True)
class _Question:
    """What was asked about a task's head.

    Attributes:
        task: with its coefficients.
        shares: of the nodes that were asked.
        classes: of the task.
        open: node and round of each request without an answer yet.
    """

    task: TaskState
    shares: Mapping[int, Share]
    classes: int
    open: set[tuple[int, int]]

    @property
    def topic(self) -> Topic:
        """For the ledger."""
        return Topic(self.task.name, self.task.round)


@dataclass
class Heads:
    """The heads of a run's tasks.

    Attributes:
        kind: one of ``recast_core.heads.head_names``.
        width: of the backbone's features; 0 for a kind that stays on its client.
        baseline: also make a head on the backbone as it came, so that what the coefficients add
            can be told. Its bytes are counted as ``metrics``: nothing but the report needs them.
        bits: of a broadcast's coefficients.
        classes_of: the class list of a task by its source; its answer, or itself, is ``None`` where
            only the clients know it.
        outputs: of a classifier that is kept; 0 of any other head.
        max_weight: times their median that a client's examples may count; 0 for no limit.
        earlier: whose head later tasks keep; ``None`` where they keep none.
        wary: whether what clients tell of their features is held against what the others tell.
    """

    kind: str = "local"
    width: int = 0
    baseline: bool = True
    bits: int = BROADCAST_BITS
    classes_of: ClassesOf | None = None
    outputs: int = 0
    max_weight: float = 0.0
    earlier: EarlierHead | None = None
    wary: bool = False
    _merged: dict[tuple[int, bool], bytes] = field(default_factory=dict)
    # The round whose features a task's head was made of.
    _of: dict[int, int] = field(default_factory=dict)

    @property
    def travel(self) -> bool:
        """Whether the server makes the heads."""
        return head_kind(self.kind).travels

    @property
    def stay(self) -> bool:
        """Whether the deployed classifier stays, for which one class is enough to learn from."""
        return head_kind(self.kind).kept

    def forget(self, task: int) -> None:
        """Make a task's head again when it is wanted: its coefficients have changed."""
        for of_start in (False, True):
            self._merged.pop((task, of_start), None)
        if self.earlier is not None and task == self.earlier.number:
            self.earlier.head = None

    def keeps(self, task: int) -> bool:
        """Whether a task keeps an earlier one's head."""
        return self.earlier is not None and task > self.earlier.number

    def stays(self, task: int) -> bool:
        """Whether a task keeps a classifier: the deployed one or an earlier task's."""
        return self.stay or self.keeps(task)

    def can_train(self, task: int, share: Share) -> bool:
        """Whether a client has enough of a task to learn from."""
        return share.train_examples > 0 if self.stays(task) else share.can_train

    def can_evaluate(self, task: int, share: Share) -> bool:
        """Whether a client can measure a task: with a head that was sent, on any test images."""
        if self.stays(task):
            return share.train_examples > 0 and share.test_examples > 0
        if not self.travel:
            return share.can_evaluate
        return share.test_examples > 0 and (task, False) in self._merged

    def measures_baseline(self, broadcast: pb.Broadcast) -> bool:
        """Whether the answer to an evaluation says how good the head alone is."""
        if not self.travel or self.keeps(broadcast.task):
            return True
        return bool(broadcast.start_head) or not broadcast.coefficients

    def complete(self, broadcast: pb.Broadcast) -> pb.Broadcast:
        """``broadcast``, which asks for an evaluation, with the head to evaluate with."""
        if self.keeps(broadcast.task):
            broadcast.head_kind = code_of("backbone")
            return broadcast
        broadcast.head_kind = code_of(self.kind)
        if self.travel:
            broadcast.head = self._merged.get((broadcast.task, False), b"")
            if broadcast.coefficients:
                broadcast.start_head = self._merged.get((broadcast.task, True), b"")
        if self.earlier is not None and broadcast.head and self.earlier.is_of(broadcast):
            broadcast.kept.id = self.earlier.learned(broadcast).id
        return broadcast

    def merged(self, task: int) -> bytes:
        """A task's own head as clients are sent it; empty where there is none yet."""
        return self._merged.get((task, False), b"")

    def restore(self, task: int, head: bytes) -> None:
        """Take a head that was merged before for the task's own."""
        self._merged[task, False] = head

    def gather(
        self, grid: Grid, exchange: Exchange, tasks: Sequence[TaskState], nodes: Nodes
    ) -> None:
        """One exchange with every client that has images of a task, for ``complete`` to use.

        A client that sends what cannot be is refused; the head is made without it. A task that has
        its head of this round is not asked for again.
        """
        for task in tasks if self.travel else ():
            there = (task.number, False) in self._merged
            if self.keeps(task.number) or (
                there and self._of.get(task.number) in (None, task.round)
            ):
                continue
            shares = {
                node: shares[task.number]
                for node, shares in sorted(nodes.items())
                if task.number in shares and shares[task.number].train_examples
            }
            if not shares:
                continue
            classes = len(task.classes) or agreed_classes(shares.values())
            question = _Question(task, shares, classes, set())
            longest = self._longest(question)
            replies = exchange.collector.ask(
                grid,
                self._ask(exchange, question),
                lambda reply, longest=longest: is_answer(reply, "head", longest),  # type: ignore[misc]
                hurry=False,
            )
            for of_start, statistics in self._receive(exchange, replies, question).items():
                self._merge(task, of_start, statistics, question.classes)

    def _longest(self, question: _Question) -> int:
        """Bytes that an answer may have."""
        classes = question.classes
        return statistics_length(self.kind, classes, self.width, classes) + 64

    def _ask(self, exchange: Exchange, question: _Question) -> list[Message]:
        start, task = exchange.start, question.task
        requests = [to_broadcast(start, task.number, task.round, task.vector, None, self.bits)]
        if self.baseline and requests[0].coefficients:
            requests.append(pb.Broadcast(bank=start.prefix, task=task.number, round=0))
        messages = []
        for request in requests:
            request.head_kind = code_of(self.kind)
            for node in question.shares:
                question.open.add((node, request.round))
                body = pb.ToClient(head=request)
                messages.append(exchange.traffic.send(node, body, question.topic))
        return messages

    def _receive(
        self, exchange: Exchange, replies: Iterable[Message], question: _Question
    ) -> dict[bool, list[tuple[int, Statistics]]]:
        """Nodes' statistics for the head with the coefficients (``False``), and at the start."""
        classes, topic = question.classes, question.topic
        longest = self._longest(question)
        # At the start only where that was asked: a head that nobody wants is not missing.
        asked = {False} | {round_ == 0 for _, round_ in question.open}
        told: dict[bool, list[tuple[bytes, int, Statistics]]] = {start: [] for start in asked}
        for answer in exchange.traffic.receive(replies, topic, "head", longest):
            node, found = answer.node, answer.body.head
            try:
                if (node, found.round) not in question.open:
                    raise RefusedError("stale-round", f"round {found.round} was not asked for")
                question.open.remove((node, found.round))
                share, number = question.shares.get(node), question.task.number
                checked = check_head(
                    exchange.start, found, number, share, self.kind, classes, self.width
                )
                told[found.round == 0].append((found.content, node, checked))
            except RefusedError as refused:
                exchange.traffic.refuse(node, topic, refused.reason, str(refused))
        # A sum's last bits depend on the order: one that neither arrival nor node ids decide.
        return {
            of_start: [(node, one) for _, node, one in sorted(all_, key=lambda entry: entry[0])]
            for of_start, all_ in told.items()
        }

    def _merge(
        self,
        task: TaskState,
        of_start: bool,
        statistics: Sequence[tuple[int, Statistics]],
        classes: int,
    ) -> None:
        self._merged.pop((task.number, of_start), None)
        self._of[task.number] = task.round
        if not statistics:
            logger.error("no head for task %s: nobody told of its features", task.name)
            return
        kind: HeadKind = head_kind(self.kind)
        try:
            told = [one for _, one in statistics]
            within = limited_statistics(self.kind, told, self.max_weight)
            if self.wary:
                trusted = trusted_statistics(self.kind, within)
                within = list(trusted.values())
                self._tell_left_out(
                    task, [n for p, (n, _) in enumerate(statistics) if p not in trusted]
                )
            merged = kind.merge(within, classes)
            assert merged is not None
            self._merged[task.number, of_start] = pack_head(merged, self.kind)
        except (RecastError, RuntimeError) as error:
            # Every number was in range, yet their sum has no solution: as if nobody had answered.
            logger.error("no head for task %s: %s", task.name, error)

    def _tell_left_out(self, task: TaskState, nodes: Sequence[int]) -> None:
        if nodes:
            names = ", ".join(str(node) for node in sorted(nodes))
            logger.info("the head of task %s is made without what came from %s", task.name, names)
