"""Who is in the federation: greet nodes, and send the bank to those that lack it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from flwr.serverapp import Grid

from protos import recast_v1_pb2 as pb
from recast_core.messages import bank_ref
from recast_core.start import MethodStart, Start
from server.observer import Observer
from server.traffic import Topic, Traffic


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


class Roster:
    """The nodes that hold the bank, and their shares of each task by its number."""

    def __init__(
        self,
        bank: Start,
        tasks: Sequence[pb.Task],
        traffic: Traffic,
        observer: Observer,
        timeout: float,
    ) -> None:
        self._content = bank.to_bytes()
        self._bank = bank
        self._tasks = tasks
        self._traffic = traffic
        self._observer = observer
        self._timeout = timeout
        self._shares: dict[int, dict[int, Share]] = {}

    @property
    def bank_bytes(self) -> int:
        """The size of the bank's file."""
        return len(self._content)

    @property
    def nodes(self) -> Mapping[int, Mapping[int, Share]]:
        """Every node that is ready, with its shares."""
        return self._shares

    def refresh(self, grid: Grid) -> None:
        """Greet nodes that are new or were forgotten; drop those that left."""
        present = sorted(grid.get_node_ids())
        for gone in set(self._shares) - set(present):
            del self._shares[gone]
        new = [node for node in present if node not in self._shares]
        if not new:
            return
        reference = bank_ref(self._bank, len(self._content))
        method = self._bank.method if isinstance(self._bank, MethodStart) else ""
        request = pb.HelloRequest(bank=reference, tasks=self._tasks, method=method)
        hello = pb.ToClient(hello=request)
        topic = Topic()
        replies = grid.send_and_receive(
            [self._traffic.send(node, hello, topic) for node in new], timeout=self._timeout
        )
        answers = {
            node: message.hello for node, message in self._traffic.receive(replies, topic, "hello")
        }
        lacking = [node for node, hello in answers.items() if not hello.holds_bank]
        holders = set(answers) - set(lacking) | self._deliver(grid, lacking, reference)
        numbers = {task.id for task in self._tasks}
        for node in sorted(holders):
            self._shares[node] = {
                data.task: Share(
                    data.train_examples, data.test_examples, data.classes, data.local_classes
                )
                for data in answers[node].tasks
                if data.task in numbers
            }
        self._observer.joined(len(self._shares), len(lacking))

    def forget(self, node: int) -> None:
        """Greet ``node`` again before the next round: it lost the bank or its tasks."""
        self._shares.pop(node, None)

    def _deliver(self, grid: Grid, nodes: Sequence[int], reference: pb.BankRef) -> set[int]:
        if not self._content:
            for node in nodes:
                detail = "its backbone or version gives the method another start"
                self._traffic.refuse(node, Topic(), "wrong-bank", detail)
            return set()
        if not nodes:
            return set()
        body = pb.ToClient(bank=pb.BankDelivery(bank=reference, content=self._content))
        topic = Topic()
        replies = grid.send_and_receive(
            [self._traffic.send(node, body, topic) for node in nodes], timeout=self._timeout
        )
        stored = set()
        for node, message in self._traffic.receive(replies, topic, "bank"):
            if message.bank.bank == self._bank.prefix:
                stored.add(node)
            else:
                self._traffic.refuse(node, topic, "wrong-bank", "the receipt names another bank")
        return stored
