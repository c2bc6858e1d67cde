"""A client that says in each round that it lacks something is not sent it in each round."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from protos import recast_v1_pb2 as pb
from recast_core.wire.kept_head import kept_of
from server.exchange.leniency import Leniency
from server.rounds.earlier import EarlierHead

if TYPE_CHECKING:
    from conftest import Federation

Make = Callable[..., "Federation"]
ROUNDS = 40


def refusal(reason: pb.Refusal.Reason) -> pb.ToServer:
    return pb.ToServer(refusal=pb.Refusal(reason=reason))


def test_so_many_times_at_once_and_then_once_in_so_many_seconds() -> None:
    now = [0.0]
    leniency = Leniency(3, 10.0, lambda: now[0])
    granted = []
    for second in range(100):
        now[0] = float(second)
        if leniency.grant(7):
            granted.append(second)
    assert granted[:3] == [0, 1, 2]
    assert granted[3] >= 12
    assert 8 <= len(granted) <= 3 + 100 / 10
    assert leniency.grant(8)


@pytest.mark.parametrize("reason", ["UNKNOWN_TASK", "BANK_MISSING", "BANK_MISMATCH"])
def test_whoever_forgets_in_each_round_is_not_greeted_in_each(
    federation: Make, reason: str
) -> None:
    def forgetful(question: pb.ToClient, right: pb.ToServer) -> object:
        if question.WhichOneof("body") == "train":
            return refusal(pb.Refusal.Reason.Value(f"REASON_{reason}"))
        return right

    made = federation(nodes=2, scripts={2: forgetful}, rounds=ROUNDS)
    made.go()
    assert made.grid.nodes[2].kinds().count("hello") <= 18
    assert [entry.clients for entry in made.registry.rounds(made.run, 1)] == [1] * ROUNDS
    assert made.reasons()["greeted-again"] == 1


def test_whoever_never_stores_the_bank_is_not_sent_it_in_each_round(federation: Make) -> None:
    def full(question: pb.ToClient, right: pb.ToServer) -> object:
        if question.WhichOneof("body") == "bank":
            made.grid.nodes[2].holds = False
            return refusal(pb.Refusal.REASON_FAILED)
        return right

    made = federation(nodes=2, scripts={2: full}, rounds=ROUNDS)
    made.go()
    assert made.grid.nodes[2].kinds().count("bank") <= 9
    assert [entry.clients for entry in made.registry.rounds(made.run, 1)] == [1] * ROUNDS


def test_an_earlier_head_is_sent_some_times_and_then_seldom() -> None:
    head = kept_of(pb.Broadcast(bank=1, task=1, round=1, head=bytes(1000)))
    earlier, sent = EarlierHead("first", 1, head=head), 0
    for _ in range(ROUNDS):
        sent += len(earlier.told(7).head) > 0
        earlier.answered([7, 8], [8])  # it says that it lacks it, or nothing
    assert 2 <= sent <= 5
    assert len(earlier.told(9).head) == 1000
