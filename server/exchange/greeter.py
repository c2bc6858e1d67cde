"""Greeting nodes, asking them for class names, and sending them the bank."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from flwr.app import Message
from flwr.serverapp import Grid
from google.protobuf.message import DecodeError

from protos import recast_v1_pb2 as pb
from protos.content import from_content
from recast_core.classes import Names
from recast_core.errors import RecastError
from recast_core.start import Start
from recast_core.wire.messages import bank_ref
from server.exchange.class_lists import ClassLists, names_in
from server.exchange.collect import Collector
from server.exchange.deliveries import Deliveries
from server.exchange.leniency import Leniency
from server.exchange.traffic import MESSAGE_TYPES, Reply, Topic, Traffic, is_answer

# A list of a few thousand names; a reply that was not asked for one is shorter.
_LONGEST_LIST = 1 << 20


@dataclass(frozen=True)
class Wanted:
    """Whose class names are asked for.

    Attributes:
        task: by number.
        announced: the hash of the list, of which one copy is enough; 0 for every node's own.
    """

    task: int
    announced: int = 0


class Greeter:
    """What is said before anybody trains.

    Attributes:
        lists: the class lists that are agreed, and who is told of them.
    """

    def __init__(self, start: Start, traffic: Traffic, collector: Collector) -> None:
        self.lists = ClassLists()
        self._content = start.to_bytes()
        self._start = start
        self._traffic = traffic
        self._collector = collector
        self._deliveries = Deliveries()
        # For one that forgets what it was told, as one that is started again may; and for one
        # that is sent the bank and answers that it has not stored it, as where a disk is full.
        self._forgotten = Leniency(times=16, seconds=10.0)
        self._unstored = Leniency(times=8, seconds=60.0)

    def barred(self, node: int) -> bool:
        """Whether a node has lost the bank, or what it was told, too often to be greeted now."""
        patience = self._deliveries, self._forgotten, self._unstored
        return any(one.barred(node) for one in patience)

    def forgot(self, node: int) -> None:
        """A node says that it lacks what it was told; once too often, and it has to wait."""
        if not self._forgotten.grant(node):
            seconds = self._forgotten.seconds
            detail = f"it forgets what it was told in each round: asked in {seconds:.0f} s"
            self._traffic.refuse(node, Topic(), "greeted-again", detail)

    def greet(
        self,
        grid: Grid,
        tasks: Sequence[pb.Task],
        nodes: Iterable[int],
        wanted: Wanted | None = None,
    ) -> dict[int, pb.Hello]:
        """Tell nodes of ``tasks``, and ask them for the names ``wanted``; their answers."""
        asked = () if wanted is None else (wanted.task,)
        reference = bank_ref(self._start, len(self._content))
        bodies = {
            node: pb.ToClient(
                hello=pb.HelloRequest(
                    bank=reference,
                    tasks=self.lists.tasks_for(node, tasks, asked),
                    method=self._start.method,
                )
            )
            for node in nodes
        }
        answers = self._ask(grid, bodies, "hello", wanted) if bodies else []
        return {answer.node: answer.body.hello for answer in answers}

    def lists_of(
        self, grid: Grid, tasks: Sequence[pb.Task], task: int, groups: Mapping[int, Sequence[int]]
    ) -> tuple[dict[int, Names], dict[int, str]]:
        """The lists of class names behind some hashes; and what is wrong with nodes' answers.

        One node of each hash is asked, all at once; where it does not say, three others, then nine:
        whoever keeps silent costs the time of one exchange, and many of them no more than a few.

        Args:
            grid: what carries messages.
            tasks: of the run.
            task: of which the lists are.
            groups: the nodes of each hash.
        """
        firsts = {nodes[0]: announced for announced, nodes in groups.items()}
        found: dict[int, Names] = {}
        liars: dict[int, str] = {}

        def read(hellos: Mapping[int, pb.Hello], announced: int) -> None:
            for node, hello in hellos.items():
                try:
                    found[announced] = names_in(hello, task, announced)
                except RecastError as error:
                    liars[node] = str(error)

        for node, hello in self.greet(grid, tasks, firsts, Wanted(task)).items():
            read({node: hello}, firsts[node])
        for announced, nodes in groups.items():
            begin, count = 1, 3
            while begin < len(nodes) and announced not in found:
                batch = nodes[begin : begin + count]
                begin, count = begin + count, 3 * count
                read(self.greet(grid, tasks, batch, Wanted(task, announced)), announced)
        return found, liars

    def deliver(self, grid: Grid, nodes: Sequence[int]) -> set[int]:
        """Send nodes the bank; those that have it now."""
        if not self._content:
            for node in nodes:
                detail = "its backbone or version gives the method another start"
                self._traffic.refuse(node, Topic(), "wrong-bank", detail)
            return set()
        nodes = [node for node in nodes if self._may_have_it_again(node)]
        if not nodes:
            return set()
        reference = bank_ref(self._start, len(self._content))
        body = pb.ToClient(bank=pb.BankDelivery(bank=reference, content=self._content))
        stored = set()
        answers = self._ask(grid, dict.fromkeys(nodes, body), "bank")
        for answer in answers:
            if answer.body.bank.bank == self._start.prefix:
                stored.add(answer.node)
                self._deliveries.stored(answer.node)
            else:
                self._traffic.refuse(
                    answer.node, Topic(), "wrong-bank", "the receipt names another bank"
                )
        for node in set(nodes) - stored - self._collector.waiting(MESSAGE_TYPES["bank"]):
            self._unstored.grant(node)
        return stored

    def _may_have_it_again(self, node: int) -> bool:
        pause = self._deliveries.pause(node)
        if pause:
            detail = f"it has confirmed the bank twice and lacks it again: asked in {pause:.0f} s"
            self._traffic.refuse(node, Topic(), "bank-again", detail)
        return not pause

    def _ask(
        self,
        grid: Grid,
        bodies: Mapping[int, pb.ToClient],
        expected: str,
        wanted: Wanted | None = None,
    ) -> list[Reply]:
        messages = [self._traffic.send(node, body, Topic(), grid) for node, body in bodies.items()]
        limit = 0 if wanted is None else _LONGEST_LIST
        one, enough = wanted is not None and wanted.announced != 0, None
        if wanted is not None:
            enough = 1 if one else len(bodies)

        def useful(reply: Message) -> bool:
            return is_answer(reply, expected, limit) and not (one and not _has(reply, wanted))

        replies = self._collector.ask(grid, messages, useful, hurry=one, enough=enough)
        # Where one copy of a list was enough, the others who were asked had no time.
        late = self._collector.waiting(MESSAGE_TYPES[expected]) & set(bodies)
        for node in sorted(() if one and any(map(useful, replies)) else late):
            self._traffic.refuse(node, Topic(), "silent", f"no answer to {expected} in time")
        return list(self._traffic.receive(replies, Topic(), expected, limit))


def _has(reply: Message, wanted: Wanted | None) -> bool:
    """Whether an answer has the class names that are wanted, with their hash."""
    assert wanted is not None
    body = from_content(reply)
    try:
        hello = pb.ToServer.FromString(body or b"").hello
        return bool(names_in(hello, wanted.task, wanted.announced))
    except (RecastError, DecodeError):
        return False
