"""Every byte is counted at the length that was handed over, and every refusal under its reason."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from flwr.app import ConfigRecord, Error, Message, RecordDict

from protos import recast_v1_pb2 as pb
from protos.content import from_content, to_content
from server.exchange.observer import LogObserver
from server.exchange.traffic import MAX_REPLY_BYTES, Topic, Traffic
from server.flower import number
from server.record.ledger import Ledger
from server.record.registry import Registry
from server.record.rows import LedgerRow

TOPIC = Topic("t", 3)
UPDATE = pb.ToServer(update=pb.Update(bank=1, task=1, round=3, examples=5, coefficients=b"x" * 24))


class Told(LogObserver):
    def __init__(self) -> None:
        super().__init__()
        self.refusals: list[tuple[str, str]] = []

    def refused(self, client: str, reason: str, detail: str) -> None:
        assert "\n" not in detail
        self.refusals.append((client, reason))


class Desk:
    def __init__(self, folder: Path) -> None:
        self.registry = Registry(folder / "registry.sqlite")
        self.ledger = Ledger(self.registry)
        self.told = Told()
        self.traffic = Traffic(self.ledger, self.told)

    def question(self, node: int = 7) -> Message:
        message = self.traffic.send(node, pb.ToClient(hello=pb.HelloRequest()), TOPIC)
        number(message)
        self.ledger.drain()
        return message

    def receive(self, *contents: object, expected: str = "update") -> list[tuple[int, pb.ToServer]]:
        question = self.question()
        replies = [reply(question, content) for content in contents]
        found = list(self.traffic.receive(replies, TOPIC, expected))
        assert all(answer.topic == TOPIC for answer in found)
        return [(answer.node, answer.body) for answer in found]

    def reasons(self) -> list[str]:
        reasons = [refusal.reason for refusal in self.ledger.drain_refusals()]
        assert reasons == [reason for _, reason in self.told.refusals]
        self.told.refusals.clear()
        return reasons


def reply(question: Message, content: object) -> Message:
    if isinstance(content, Error | RecordDict):
        return Message(content, reply_to=question)
    body = content if isinstance(content, bytes) else content.SerializeToString()  # type: ignore[attr-defined]
    return Message(to_content(body), reply_to=question)


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    made = Desk(tmp_path)
    yield made
    made.registry.close()


def by_layer(rows: list[LedgerRow]) -> dict[str, list[int]]:
    layers: dict[str, list[int]] = {}
    for row in rows:
        layers.setdefault(row.layer, []).append(row.bytes)
    return layers


SENT = {
    "hello": (pb.ToClient(hello=pb.HelloRequest(tasks=[pb.Task(id=1, name="t")])), "control", 0),
    "bank": (pb.ToClient(bank=pb.BankDelivery(content=b"c" * 500)), "bank", 500),
    "train": (pb.ToClient(train=pb.Broadcast(coefficients=b"c" * 48)), "coefficients", 48),
    "evaluate": (pb.ToClient(evaluate=pb.Broadcast(coefficients=b"c" * 48)), "coefficients", 48),
}


@pytest.mark.parametrize("name", SENT)
def test_what_is_sent_is_counted_as_payload_and_as_message(desk: Desk, name: str) -> None:
    body, kind, payload = SENT[name]
    message = desk.traffic.send(7, body, TOPIC)
    carried = from_content(message)
    assert carried == body.SerializeToString()
    row = {"task": "t", "round": 3, "client": "7", "direction": "down", "kind": kind}
    assert desk.ledger.drain() == [
        LedgerRow(**row, layer="payload", bytes=payload),  # type: ignore[arg-type]
        LedgerRow(**row, layer="message", bytes=len(carried or b"")),  # type: ignore[arg-type]
    ]
    assert message.metadata.dst_node_id == 7


RECEIVED = {
    "hello": (pb.ToServer(hello=pb.Hello(holds_bank=True)), "control", 0),
    "bank": (pb.ToServer(bank=pb.BankReceipt(bank=5)), "control", 0),
    "update": (UPDATE, "coefficients", 24),
    "evaluation": (pb.ToServer(evaluation=pb.Evaluation(correct=3)), "metrics", 0),
}


@pytest.mark.parametrize("name", RECEIVED)
def test_what_is_received_is_counted_as_payload_and_as_message(desk: Desk, name: str) -> None:
    body, kind, payload = RECEIVED[name]
    assert desk.receive(body, expected=name) == [(7, body)]
    row = {"task": "t", "round": 3, "client": "7", "direction": "up", "kind": kind}
    assert desk.ledger.drain() == [
        LedgerRow(**row, layer="payload", bytes=payload),  # type: ignore[arg-type]
        LedgerRow(**row, layer="message", bytes=body.ByteSize()),  # type: ignore[arg-type]
    ]
    assert desk.reasons() == []


OVERSIZE = pb.ToServer(update=pb.Update(coefficients=bytes(MAX_REPLY_BYTES + 1)))
REFUSED: dict[str, tuple[object, str]] = {
    "garbage": (b"\xff\xff\xff", "malformed"),
    "empty": (b"", "malformed"),
    "oversize": (OVERSIZE, "oversize"),
    "another kind": (pb.ToServer(hello=pb.Hello()), "malformed"),
    "refusal": (
        pb.ToServer(refusal=pb.Refusal(reason=pb.Refusal.REASON_ONE_CLASS, detail="a\nb")),
        "one-class",
    ),
    "later refusal": (pb.ToServer(refusal=pb.Refusal(reason=77)), "malformed"),  # type: ignore[arg-type]
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_answer_is_refused_and_still_counted(desk: Desk, name: str) -> None:
    content, reason = REFUSED[name]
    assert desk.receive(content) == []
    assert desk.reasons() == [reason]
    size = len(content) if isinstance(content, bytes) else content.ByteSize()  # type: ignore[attr-defined]
    assert by_layer(desk.ledger.drain())["message"] == [size]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (Error(code=1, reason="Boom:\nline"), "client-error"),
        (RecordDict(), "malformed"),
        (RecordDict({"r": ConfigRecord({"m": "text"})}), "malformed"),
        (RecordDict({"r": ConfigRecord({"x": b"x"})}), "malformed"),
    ],
)
def test_replies_without_a_message_of_ours_are_refused(
    desk: Desk, content: object, reason: str
) -> None:
    assert desk.receive(content) == []
    assert desk.reasons() == [reason]


def test_a_message_as_long_as_allowed_is_taken(desk: Desk) -> None:
    room = MAX_REPLY_BYTES - OVERSIZE.ByteSize() + MAX_REPLY_BYTES + 1
    body = pb.ToServer(update=pb.Update(coefficients=bytes(room)))
    assert body.ByteSize() == MAX_REPLY_BYTES
    assert len(desk.receive(body)) == 1


def test_a_second_answer_to_one_message_is_replayed(desk: Desk) -> None:
    assert desk.receive(UPDATE, UPDATE, UPDATE) == [(7, UPDATE)]
    assert desk.reasons() == ["replayed", "replayed"]
    refusal = pb.ToServer(refusal=pb.Refusal(reason=pb.Refusal.REASON_FAILED))
    assert desk.receive(refusal, UPDATE) == []
    assert desk.reasons() == ["failed", "replayed"]


def test_an_answer_to_each_of_two_messages_is_no_replay(desk: Desk) -> None:
    replies = [reply(desk.question(), UPDATE), reply(desk.question(), UPDATE)]
    assert len(list(desk.traffic.receive(replies, TOPIC, "update"))) == 2
    assert desk.reasons() == []


def test_one_bad_answer_does_not_harm_the_others(desk: Desk) -> None:
    replies = [
        reply(desk.question(node), content)
        for node, content in ((1, UPDATE), (2, b"\xff"), (3, Error(1, "x")), (4, UPDATE))
    ]
    received = list(desk.traffic.receive(replies, TOPIC, "update"))
    assert [(answer.node, answer.body) for answer in received] == [(1, UPDATE), (4, UPDATE)]
    assert desk.told.refusals == [("2", "malformed"), ("3", "client-error")]


def test_a_refusals_detail_is_one_short_line(desk: Desk) -> None:
    desk.traffic.refuse(7, TOPIC, "failed", "a\nb\tc  d" + "x" * 1000)
    (refusal,) = desk.ledger.drain_refusals()
    assert refusal.detail.startswith("a b c dxx")
    assert len(refusal.detail) == 300
    assert (refusal.client, refusal.task, refusal.round) == ("7", "t", 3)


HOSTILE = "\x1b[2J\x1b[31mOWNED\x1b[0m \x1b]0;title\x07 \r\nINFO fake line\x00end \u202egnp"


@pytest.mark.parametrize("way", ["refusal", "error"])
def test_a_clients_words_reach_log_and_registry_without_what_orders_a_terminal(
    desk: Desk, way: str, caplog: pytest.LogCaptureFixture
) -> None:
    content: object = Error(1, HOSTILE)
    if way == "refusal":
        refusal = pb.Refusal(reason=pb.Refusal.REASON_FAILED, detail=HOSTILE)
        content = pb.ToServer(refusal=refusal)
    with caplog.at_level("WARNING", "recast.server"):
        desk.told.refused = LogObserver().refused  # type: ignore[method-assign]
        desk.receive(content)
    (refused,) = desk.ledger.drain_refusals()
    assert refused.detail == "OWNED INFO fake line end gnp"
    assert caplog.records[-1].getMessage().isprintable()
    assert refused.detail in caplog.records[-1].getMessage()
