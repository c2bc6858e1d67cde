"""The simulation engine: all clients of a round trained as one batch in this process."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from flwr.app import Message, RecordDict
from flwr.serverapp import Grid
from flwr.supercore.run import Run
from google.protobuf.message import DecodeError

from client import answer
from experiments.engines.folded_round import Banks, FoldedRound, Options
from protos import recast_v1_pb2 as pb
from protos.content import from_content, to_content
from recast_core.errors import RecastError
from recast_core.settings import Settings
from server.flower import empty_run, number

RUN_ID = 1
Replies = list[pb.ToServer]


@dataclass
class SimulatedNode:
    """What one simulated client remembers between messages.

    Attributes:
        number: of its partition.
        banks: the identities of the banks that it was sent.
        tasks: those that it was told of, by number; shared by nodes that were told the same.
    """

    number: int
    banks: set[bytes] = field(default_factory=set)
    tasks: dict[int, pb.Task] = field(default_factory=dict)


@dataclass
class TimeSplit:
    """Where the time of the messages pushed so far went, in seconds.

    Attributes:
        training: in ``recast_core.folded``.
        evaluating: likewise.
        grid: everything else: parsing, partitions, building replies.
        clients: messages answered.
    """

    training: float = 0.0
    evaluating: float = 0.0
    grid: float = 0.0
    clients: int = 0


class FoldedGrid(Grid):
    """A grid of simulated nodes. Node ``i + 1`` has partition ``i`` of every task.

    Messages pushed together are answered together, with what ``client.app`` answers to each: the
    same seeds, the same batches, the same codec. Nothing is kept per node but what it was told.

    Attributes:
        time: where the time went.
    """

    def __init__(
        self,
        clients: int,
        settings: Settings,
        answered: Callable[[], None] = lambda: None,
        options: Options | None = None,
    ) -> None:
        """Prepare ``clients`` nodes; ``answered`` is called once for each reply."""
        self._answered = answered
        self._run = empty_run(RUN_ID)
        self._replies: dict[str, Message] = {}
        self._nodes = {index + 1: SimulatedNode(index) for index in range(clients)}
        self._banks = Banks()
        self._round = FoldedRound(clients, settings, self._banks, options or Options())
        self._parsed: tuple[bytes, pb.ToClient] = b"", pb.ToClient()
        self._told: tuple[bytes, dict[int, pb.Task]] = b"", {}
        self.time = TimeSplit()

    def set_run(self, run: Run) -> None:
        """Replace the run's description."""
        self._run = run

    @property
    def run(self) -> Run:
        """The run's description."""
        return self._run

    def create_message(
        self,
        content: RecordDict,
        message_type: str,
        dst_node_id: int,
        group_id: str,
        ttl: float | None = None,
    ) -> Message:
        """A message to a node."""
        return Message(content, dst_node_id, message_type, ttl=ttl, group_id=group_id)

    def get_node_ids(self) -> Iterable[int]:
        """Every node."""
        return list(self._nodes)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Answer the messages now, together; the replies wait to be pulled."""
        began = time.monotonic()
        before = self._round.training + self._round.evaluating
        messages = list(messages)
        names = [number(message) for message in messages]
        bodies = self._answer(messages)
        for name, message, body in zip(names, messages, bodies, strict=True):
            reply = Message(to_content(body.SerializeToString()), reply_to=message)
            number(reply)
            self._replies[name] = reply
        self.time.training = self._round.training
        self.time.evaluating = self._round.evaluating
        spent = self._round.training + self._round.evaluating - before
        self.time.grid += time.monotonic() - began - spent
        self.time.clients += len(names)
        return names

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """The replies to these messages, each once."""
        return [self._replies.pop(name) for name in message_ids if name in self._replies]

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        """Answer the messages and return the replies; nothing here takes longer than the work."""
        return self.pull_messages(self.push_messages(messages))

    def _answer(self, messages: Sequence[Message]) -> Replies:
        """A body for each message; those that train or evaluate the same thing go together."""
        bodies: list[pb.ToServer | None] = [None] * len(messages)
        together: dict[tuple[str, bytes], tuple[pb.Broadcast, list[int]]] = {}
        for index, message in enumerate(messages):
            content = from_content(message) or b""
            try:
                request = self._parse(content)
            except DecodeError:
                bodies[index] = answer.refusal(
                    pb.Refusal.REASON_MALFORMED, "bytes that are no message of ours"
                )
                continue
            kind = request.WhichOneof("body")
            if kind in ("train", "evaluate"):
                broadcast = request.train if kind == "train" else request.evaluate
                together.setdefault((kind, content), (broadcast, []))[1].append(index)
            else:
                bodies[index] = self._at_once(request, self._node(message))
                self._answered()
        for (kind, _), (broadcast, indices) in together.items():
            nodes = [self._node(messages[index]) for index in indices]
            work = self._round.train if kind == "train" else self._round.evaluate
            found = work(broadcast, nodes, self._finished)
            for index, body in zip(indices, found, strict=True):
                bodies[index] = body
        assert all(body is not None for body in bodies)
        return [body for body in bodies if body is not None]

    def _finished(self, count: int) -> None:
        for _ in range(count):
            self._answered()

    def _parse(self, content: bytes) -> pb.ToClient:
        """The message; a bank sent to many nodes is parsed once."""
        if content != self._parsed[0]:
            self._parsed = content, pb.ToClient.FromString(content)
        return self._parsed[1]

    def _node(self, message: Message) -> SimulatedNode:
        return self._nodes[message.metadata.dst_node_id]

    def _at_once(self, request: pb.ToClient, node: SimulatedNode) -> pb.ToServer:
        try:
            match request.WhichOneof("body"):
                case "hello":
                    node.tasks = self._tasks_of(request.hello)
                    return pb.ToServer(hello=self._round.hello(request.hello, node))
                case "bank":
                    return self._store(request.bank, node)
                case _:
                    return answer.refusal(pb.Refusal.REASON_MALFORMED, "an empty message")
        except RecastError as error:
            return answer.refusal(pb.Refusal.REASON_FAILED, str(error))

    def _tasks_of(self, hello: pb.HelloRequest) -> dict[int, pb.Task]:
        key = hello.SerializeToString()
        if key != self._told[0]:
            self._told = key, {task.id: task for task in hello.tasks}
        return self._told[1]

    def _store(self, delivery: pb.BankDelivery, node: SimulatedNode) -> pb.ToServer:
        try:
            bank = self._banks.add(delivery.content, delivery.bank.sha256)
        except RecastError as error:
            return answer.refusal(pb.Refusal.REASON_BANK_MISMATCH, str(error))
        node.banks.add(bank.sha256)
        return pb.ToServer(bank=pb.BankReceipt(bank=bank.prefix))
