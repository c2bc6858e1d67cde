"""A grid whose nodes follow a script, and a strategy that talks to it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from flwr.app import Error, Message, RecordDict
from flwr.serverapp import Grid
from flwr.supercore.run import Run

from protos import recast_v1_pb2 as pb
from protos.content import from_content, to_content
from recast_core import TemplateBank, TemplateGroup
from recast_core.wire.messages import Hyperparameters, to_update
from server.exchange.collect import Collector
from server.exchange.observer import LogObserver
from server.flower import empty_run, number, server_identity
from server.record.ledger import Ledger
from server.record.registry import Registry
from server.rounds.plan import RoundPlan
from server.rounds.strategy import FedRecast

D = 6
ALL = tuple(range(1, 10))
TRAIN, TEST = 40, 20
Script = Callable[[pb.ToClient, pb.ToServer], object]


def make_bank() -> TemplateBank:
    templates = torch.randn(D, 3, generator=torch.Generator().manual_seed(0))
    group = TemplateGroup("g", ("m",), "weight", (0,), templates)
    return TemplateBank((group,), (torch.linspace(-1, 1, D),))


@dataclass
class Clock:
    """Time that passes only where somebody sleeps."""

    now: float = 0.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@dataclass
class Node:
    """A client that answers correctly, unless its script says otherwise.

    A script is given the question and the correct answer, and returns what to send: ToServer
    messages, bytes, an Error, a RecordDict, or a list of these.
    """

    bank: TemplateBank
    offset: float = 0.5
    tasks: tuple[int, ...] = ALL
    script: Script | None = None
    holds: bool = False
    client: int = 0
    delay: Callable[[pb.ToClient], float] = lambda question: 0.0
    asked: list[pb.ToClient] = field(default_factory=list)

    def kinds(self) -> list[str]:
        return [str(question.WhichOneof("body")) for question in self.asked]

    def answer(self, question: pb.ToClient) -> list[object]:
        self.asked.append(question)
        right = self._right(question)
        if self.script is None:
            return [right]
        found = self.script(question, right)
        return found if isinstance(found, list) else [found]

    def _right(self, question: pb.ToClient) -> pb.ToServer:
        match question.WhichOneof("body"):
            case "hello":
                hello = pb.Hello(holds_bank=self.holds, client=self.client)
                for task in question.hello.tasks:
                    if task.id in self.tasks:
                        hello.tasks.add(
                            task=task.id, train_examples=TRAIN, test_examples=TEST, classes=4,
                            local_classes=4,
                        )  # fmt: skip
                return pb.ToServer(hello=hello)
            case "bank":
                self.holds = True
                return pb.ToServer(bank=pb.BankReceipt(bank=self.bank.prefix))
            case "train":
                asked = question.train
                offsets = np.full(self.bank.sent, self.offset * asked.task, np.float32)
                bits = asked.hyperparameters.bits
                return pb.ToServer(
                    update=to_update(self.bank, asked.task, asked.round, TRAIN, offsets, bits)
                )
            case _:
                asked = question.evaluate
                return pb.ToServer(
                    evaluation=pb.Evaluation(
                        bank=asked.bank, task=asked.task, round=asked.round, examples=TEST,
                        correct=15, head_only_correct=10,
                    )
                )  # fmt: skip


class Killed(BaseException):
    """Stands for the end of the process: nothing that would run after it may run."""


class ScriptedGrid(Grid):
    """Delivers at once, and counts every body that it is handed in either direction.

    A node's answer can be pulled when its delay has passed by the clock; each push and each pull
    is an event, and at the event ``kill_at`` the process dies.
    """

    def __init__(self, nodes: dict[int, Node], clock: Clock | None = None) -> None:
        self.nodes = nodes
        self.clock = clock or Clock()
        self.events = 0
        self.kill_at = 0
        self._due: dict[str, float] = {}
        self.bytes: dict[tuple[int, str], int] = {}
        self._replies: dict[str, list[Message]] = {}

    def set_run(self, run: Run) -> None:
        raise NotImplementedError

    @property
    def run(self) -> Run:
        return empty_run()

    def create_message(
        self, content: RecordDict, message_type: str, dst_node_id: int, group_id: str,
        ttl: float | None = None,
    ) -> Message:  # fmt: skip
        return Message(content, dst_node_id, message_type, ttl=ttl, group_id=group_id)

    def get_node_ids(self) -> Iterable[int]:
        return list(self.nodes)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        self._event()
        names = []
        for message in messages:
            name, node = number(message), message.metadata.dst_node_id
            body = from_content(message)
            assert body is not None
            self._count(node, "down", body)
            question = pb.ToClient.FromString(body)
            answers = self.nodes[node].answer(question)
            self._due[name] = self.clock() + self.nodes[node].delay(question)
            self._replies[name] = [self._reply(message, answer) for answer in answers]
            names.append(name)
        return names

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        self._event()
        ready = [name for name in message_ids if self._due.get(name, 0) <= self.clock()]
        return [reply for name in ready for reply in self._replies.pop(name, [])]

    def _event(self) -> None:
        self.events += 1
        if self.events == self.kill_at:
            raise Killed

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        return self.pull_messages(self.push_messages(messages))

    def _reply(self, message: Message, answer: object) -> Message:
        if isinstance(answer, Error):
            return Message(answer, reply_to=message)
        if isinstance(answer, RecordDict):
            return Message(answer, reply_to=message)
        body = answer if isinstance(answer, bytes) else answer.SerializeToString()  # type: ignore[attr-defined]
        self._count(message.metadata.dst_node_id, "up", body)
        return Message(to_content(body), reply_to=message)

    def _count(self, node: int, direction: str, body: bytes) -> None:
        key = node, direction
        self.bytes[key] = self.bytes.get(key, 0) + len(body)


@dataclass
class Federation:
    """Everything that a test of the strategy looks at."""

    bank: TemplateBank
    registry: Registry
    grid: ScriptedGrid
    strategy: FedRecast
    run: int
    clock: Clock

    def trained(self, node: int) -> list[tuple[int, int]]:
        """Task and round of each broadcast that a node was asked to train."""
        return [
            (question.train.task, question.train.round)
            for question in self.grid.nodes[node].asked
            if question.WhichOneof("body") == "train"
        ]

    def go(self, rounds: int | None = None) -> None:
        tasks = len(self.strategy.states)
        self.strategy.start(
            self.grid,
            self.strategy.initial_arrays(),
            rounds or 3 * tasks * self.strategy.plan.rounds,
        )

    def vector(self, task: int, round_: int | None = None) -> np.ndarray:
        return self.registry.coefficients(self.run, task, round_)

    def moved(self, task: int, round_: int | None = None) -> np.ndarray:
        return self.vector(task, round_) - self.bank.initial_vector.numpy()

    def reasons(self) -> dict[str, int]:
        return Ledger(self.registry).refusals(self.run)


@pytest.fixture
def killed() -> type[BaseException]:
    return Killed


@pytest.fixture(autouse=True)
def _server() -> Iterator[None]:
    logging.getLogger("flwr").setLevel(logging.ERROR)
    with server_identity():
        yield


@pytest.fixture
def federation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., Federation]]:
    """Make a federation of scripted nodes: ``nodes=3`` or their scripts by number.

    With ``run`` it is one that a new server continues.
    """
    clock = Clock()
    timed = partial(Collector, clock=clock, sleep=clock.sleep)
    monkeypatch.setattr("server.rounds.strategy.Collector", timed)
    with Registry(tmp_path / "registry.sqlite") as registry:

        def make(
            nodes: int = 3,
            scripts: dict[int, Script] | None = None,
            rounds: int = 1,
            tasks: int = 1,
            bits: int = 32,
            run: int = 0,
            **options: Any,
        ) -> Federation:
            bank = make_bank()
            run = run or registry.start_run({}, bank.sha256, {}, "test")
            members = {
                n: Node(bank, offset=n / 10, script=(scripts or {}).get(n), tasks=ALL)
                for n in range(1, nodes + 1)
            }
            heads = options.pop("heads", None)
            plan = RoundPlan(rounds, Hyperparameters(bits=bits), **({"patience": 0} | options))
            announced = [pb.Task(id=n, name=f"t{n}") for n in range(1, tasks + 1)]
            strategy = FedRecast(bank, announced, plan, registry, run, LogObserver(), heads)
            grid = ScriptedGrid(members, clock)
            return Federation(bank, registry, grid, strategy, run, clock)

        yield make
