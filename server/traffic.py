"""Messages out and replies in, each counted in the ledger as it passes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from flwr.app import Message
from google.protobuf.message import DecodeError

from protos import recast_v1_pb2 as pb
from protos.content import from_content, to_content
from server.ledger import Kind, Ledger, LedgerRow
from server.observer import Observer
from server.tables import Refusal

# An answer carries at most a few hundred numbers; whatever is larger is not one of ours, unless
# the caller expects it.
MAX_REPLY_BYTES = 1 << 16
MESSAGE_TYPES = {
    "hello": "query.hello",
    "bank": "query.bank",
    "train": "train",
    "evaluate": "evaluate",
    "head": "query.head",
}


@dataclass(frozen=True)
class Topic:
    """What a message is about, for the ledger: a task's name (or None) and a round (or 0)."""

    task: str | None = None
    round: int = 0


class Traffic:
    """Counts what is sent and received, and what is refused."""

    def __init__(self, ledger: Ledger, observer: Observer) -> None:
        self._ledger = ledger
        self._observer = observer

    def send(self, node: int, body: pb.ToClient, topic: Topic) -> Message:
        """The Flower message that carries ``body`` to ``node``."""
        content = body.SerializeToString()
        which = body.WhichOneof("body")
        assert which is not None
        for kind, payload, size in _parts_down(body, len(content)):
            self._count(topic, node, "down", kind, payload, size)
        return Message(
            to_content(content), node, MESSAGE_TYPES[which], group_id=f"{topic.task}/{topic.round}"
        )

    def receive(
        self, replies: Iterable[Message], topic: Topic, expected: str, limit: int = 0
    ) -> Iterator[tuple[int, pb.ToServer]]:
        """The well-formed replies of kind ``expected``, with their nodes; the others are refused.

        A second reply to one message is refused as replayed. Replies may have ``limit`` bytes, or
        ``MAX_REPLY_BYTES`` where that is more.
        """
        limit = max(limit, MAX_REPLY_BYTES)
        answered: set[tuple[int, str]] = set()
        for reply in replies:
            node = reply.metadata.src_node_id
            question = node, reply.metadata.reply_to_message_id
            if reply.has_error():
                self.refuse(node, topic, "client-error", reply.error.reason or "no reason given")
                continue
            body = from_content(reply)
            if body is None:
                self.refuse(node, topic, "malformed", "the reply holds no message of ours")
                continue
            if len(body) > limit:
                self._count(topic, node, "up", "control", 0, len(body))
                self.refuse(node, topic, "oversize", f"{len(body)} bytes")
                continue
            try:
                message = pb.ToServer.FromString(body)
            except DecodeError:
                self._count(topic, node, "up", "control", 0, len(body))
                self.refuse(node, topic, "malformed", f"{len(body)} bytes that do not parse")
                continue
            kind, payload = _payload_up(message)
            self._count(topic, node, "up", kind, payload, len(body))
            which = message.WhichOneof("body")
            if question in answered:
                self.refuse(node, topic, "replayed", "a second reply to one message")
            elif which == "refusal":
                answered.add(question)
                self.refuse(node, topic, _code(message.refusal.reason), message.refusal.detail)
            elif which != expected:
                self.refuse(node, topic, "malformed", f"{which} came instead of {expected}")
            else:
                answered.add(question)
                yield node, message

    def refuse(self, node: int, topic: Topic, reason: str, detail: str) -> None:
        """Leave a node or its answer out: counted, logged, and of no other effect."""
        line = " ".join(detail.split())[:300]
        self._ledger.refuse(Refusal(str(node), topic.task, topic.round, reason, line))
        self._observer.refused(str(node), reason, line)

    def _count(
        self, topic: Topic, node: int, direction: str, kind: Kind, payload: int, size: int
    ) -> None:
        row = {"task": topic.task, "round": topic.round, "client": str(node), "kind": kind}
        self._ledger.add(
            LedgerRow(**row, direction=direction, layer="payload", bytes=payload),  # type: ignore[arg-type]
            LedgerRow(**row, direction=direction, layer="message", bytes=size),  # type: ignore[arg-type]
        )


def _code(reason: int) -> str:
    """The ledger's code of a refusal; enums of proto3 are open, so any number may come."""
    if reason not in pb.Refusal.Reason.values():
        return "malformed"
    name = pb.Refusal.Reason.Name(reason)
    return name.removeprefix("REASON_").lower().replace("_", "-")


def _parts_down(body: pb.ToClient, size: int) -> Iterator[tuple[Kind, int, int]]:
    """Kind, payload and message bytes of each part of what is sent."""
    match body.WhichOneof("body"):
        case "bank":
            yield "bank", len(body.bank.content), size
        case "train":
            yield "coefficients", len(body.train.coefficients), size
        case "evaluate":
            for kind, content in (
                ("head", body.evaluate.head),
                ("metrics", body.evaluate.start_head),
            ):
                if content:
                    # With its tag and its length.
                    taken = pb.Broadcast(head=content).ByteSize()
                    size -= taken
                    yield kind, len(content), taken  # type: ignore[misc]
            yield "coefficients", len(body.evaluate.coefficients), size
        case "head":
            yield _of_start(body.head.round), len(body.head.coefficients), size
        case _:
            yield "control", 0, size


def _payload_up(message: pb.ToServer) -> tuple[Kind, int]:
    match message.WhichOneof("body"):
        case "update":
            return "coefficients", len(message.update.coefficients)
        case "head":
            return _of_start(message.head.round), len(message.head.content)
        case "evaluation":
            return "metrics", 0
        case _:
            return "control", 0


def _of_start(round_: int) -> Kind:
    """A head on the backbone as it came serves the report alone."""
    return "head" if round_ else "metrics"
