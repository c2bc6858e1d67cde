"""A grid that answers the messages of a round together."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from flwr.app import Message
from google.protobuf.message import DecodeError

from client import answer
from experiments.engines.folded.models import Options
from experiments.engines.folded.nodes import Banks, SimulatedNode
from experiments.engines.folded.round import FoldedRound
from experiments.engines.local import LocalGrid
from protos import recast_v1_pb2 as pb
from protos.content import from_content, to_content
from recast_core.errors import RecastError
from recast_core.settings import Settings


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


class FoldedGrid(LocalGrid):
    """Messages pushed together are answered together, with what ``client.app`` answers to each.

    The same seeds, the same batches, the same codec. Nothing is kept per node but what it was told.

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
        super().__init__(clients, answered)
        self._nodes = {index + 1: SimulatedNode(index) for index in range(clients)}
        self._banks = Banks()
        self._round = FoldedRound(clients, settings, self._banks, options or Options())
        self._parsed: tuple[bytes, pb.ToClient] = b"", pb.ToClient()
        self._told: tuple[bytes, dict[int, pb.Task]] = b"", {}
        self.time = TimeSplit()

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Answer the messages now, together, and keep the time."""
        began, spent = time.monotonic(), self._round.training + self._round.evaluating
        names = list(super().push_messages(messages))
        self.time.training = self._round.training
        self.time.evaluating = self._round.evaluating
        spent = self._round.training + self._round.evaluating - spent
        self.time.grid += time.monotonic() - began - spent
        self.time.clients += len(names)
        return names

    def answers(self, messages: Sequence[Message]) -> Iterable[Message]:
        """Replies; messages that train or evaluate the same thing go together."""
        bodies: dict[int, pb.ToServer] = {}
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
            if kind in ("train", "head", "evaluate"):
                broadcast = getattr(request, kind)
                together.setdefault((kind, content), (broadcast, []))[1].append(index)
            else:
                bodies[index] = self._at_once(request, self._node(message))
                self._answered()
        for (kind, _), (broadcast, indices) in together.items():
            nodes = [self._node(messages[index]) for index in indices]
            work = getattr(self._round, kind)
            bodies |= zip(indices, work(broadcast, nodes, self._finished), strict=True)
        for index, message in enumerate(messages):
            yield Message(to_content(bodies[index].SerializeToString()), reply_to=message)

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
                    return pb.ToServer(hello=self._round.held.hello(request.hello, node))
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
            bank = self._banks.receive(delivery.content, delivery.bank.sha256)
        except RecastError as error:
            return answer.refusal(pb.Refusal.REASON_BANK_MISMATCH, str(error))
        node.banks.add(bank.sha256)
        return pb.ToServer(bank=pb.BankReceipt(bank=bank.prefix))
