"""Who is in the federation: greet nodes, and send the bank to those that lack it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from flwr.serverapp import Grid

from protos import recast_v1_pb2 as pb
from recast_core.start import Start
from recast_core.wire.messages import bank_ref
from server.exchange.collect import Collector
from server.exchange.observer import Observer
from server.exchange.traffic import MESSAGE_TYPES, Reply, Topic, Traffic, is_answer


@dataclass(frozen=True)
class Share:
    """What one node has of one task: counts of images, and of classes in its training images."""

    train_examples: int
    test_examples: int
    classes: int
    local_classes: int

    @property
    def can_train(self) -> bool:
        """Whether there is something to tell apart."""
        return self.train_examples > 0 and self.local_classes > 1

    @property
    def can_evaluate(self) -> bool:
        """Whether a local head can be fitted and measured."""
        return self.can_train and self.test_examples > 0


def agreed_classes(shares: Iterable[Share]) -> int:
    """The number of classes that most nodes announce of a task; of two, the smaller."""
    counted = Counter(share.classes for share in shares)
    most = max(counted.values())
    return min(classes for classes, count in counted.items() if count == most)


class Roster:
    """The nodes that hold the bank, and their shares of each task by its number."""

    def __init__(
        self, start: Start, traffic: Traffic, collector: Collector, observer: Observer
    ) -> None:
        self._content = start.to_bytes()
        self._start = start
        self._tasks: Sequence[pb.Task] = ()
        self._traffic = traffic
        self._collector = collector
        self._observer = observer
        self._shares: dict[int, dict[int, Share]] = {}
        self._numbers: dict[int, int] = {}

    @property
    def nodes(self) -> Mapping[int, Mapping[int, Share]]:
        """Every node that is ready, with its shares."""
        return self._shares

    def announce(self, tasks: Sequence[pb.Task]) -> None:
        """Take ``tasks`` for the list of all; every node is greeted with it again."""
        self._tasks = tasks
        self._shares.clear()

    def numbers(self) -> dict[int, int]:
        """What each ready node goes by on any grid: the number that it gave, where that is its own.

        A node that gave none, or one that another gave too, goes by its node id.
        """
        given = {node: self._numbers[node] for node in self._shares}
        counts = Counter(given.values())
        return {n: own if own and counts[own] == 1 else n for n, own in given.items()}

    def refresh(self, grid: Grid) -> None:
        """Greet nodes that are new or were forgotten; drop those that left.

        A node that still owes an answer to an earlier greeting is not greeted again, so that one
        that hangs costs the others one deadline and not one in each round.
        """
        present = sorted(grid.get_node_ids())
        self._traffic.take_from(grid)
        for gone in (set(self._shares) - set(present)) | self._traffic.take_forgetful():
            self._shares.pop(gone, None)
        silent = set().union(
            *(self._collector.waiting(MESSAGE_TYPES[k]) for k in ("hello", "bank"))
        )
        new = [node for node in present if node not in self._shares and node not in silent]
        if not new:
            return
        reference = bank_ref(self._start, len(self._content))
        request = pb.HelloRequest(bank=reference, tasks=self._tasks, method=self._start.method)
        hello = pb.ToClient(hello=request)
        answers = {
            answer.node: answer.body.hello for answer in self._ask(grid, new, hello, "hello")
        }
        lacking = [node for node, hello in answers.items() if not hello.holds_bank]
        holders = set(answers) - set(lacking) | self._deliver(grid, lacking, reference)
        known = {task.id for task in self._tasks}
        for node in sorted(holders):
            self._numbers[node] = answers[node].client
            self._shares[node] = {
                data.task: Share(
                    data.train_examples, data.test_examples, data.classes, data.local_classes
                )
                for data in answers[node].tasks
                if data.task in known
            }
        self._observer.joined(len(self._shares), len(lacking))

    def _deliver(self, grid: Grid, nodes: Sequence[int], reference: pb.BankRef) -> set[int]:
        if not self._content:
            for node in nodes:
                detail = "its backbone or version gives the method another start"
                self._traffic.refuse(node, Topic(), "wrong-bank", detail)
            return set()
        if not nodes:
            return set()
        body = pb.ToClient(bank=pb.BankDelivery(bank=reference, content=self._content))
        stored = set()
        for answer in self._ask(grid, nodes, body, "bank"):
            if answer.body.bank.bank == self._start.prefix:
                stored.add(answer.node)
            else:
                self._traffic.refuse(
                    answer.node, Topic(), "wrong-bank", "the receipt names another bank"
                )
        return stored

    def _ask(
        self, grid: Grid, nodes: Sequence[int], body: pb.ToClient, expected: str
    ) -> list[Reply]:
        messages = [self._traffic.send(node, body, Topic(), grid) for node in nodes]
        replies = self._collector.ask(
            grid, messages, lambda reply: is_answer(reply, expected), hurry=False
        )
        for node in sorted(self._collector.waiting(MESSAGE_TYPES[expected]) & set(nodes)):
            self._traffic.refuse(node, Topic(), "silent", f"no answer to {expected} in time")
        return list(self._traffic.receive(replies, Topic(), expected))
