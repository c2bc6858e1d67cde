"""Rounds go on without whoever answers wrongly, and everything is counted under its reason."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import pytest
from flwr.app import Error

from protos import recast_v1_pb2 as pb
from recast_core import RecastError
from server.record.ledger import Ledger
from server.rounds.attendance import UnlearnableError

if TYPE_CHECKING:
    from conftest import Federation, Script

Make = Callable[..., "Federation"]


def on(kind: str, change: Callable[[pb.ToServer], object]) -> Script:
    """Answer questions of one kind as ``change`` makes of the right answer."""

    def script(question: pb.ToClient, right: pb.ToServer) -> object:
        return change(right) if question.WhichOneof("body") == kind else right

    return script


def update(**values: object) -> Callable[[pb.ToServer], pb.ToServer]:
    def change(right: pb.ToServer) -> pb.ToServer:
        for name, value in values.items():
            setattr(right.update, name, value)
        return right

    return change


def bank_flipped(right: pb.ToServer) -> pb.ToServer:
    right.update.bank ^= 1
    return right


def refusal(reason: pb.Refusal.Reason) -> pb.ToServer:
    return pb.ToServer(refusal=pb.Refusal(reason=reason, task=1, round=1, detail="no"))


NAN = np.full(6, np.nan, "<f4").tobytes()
WRONG: dict[str, tuple[Callable[[pb.ToServer], object], str]] = {
    "garbage": (lambda right: b"\xff\xff\xff", "malformed"),
    "nothing": (lambda right: b"", "malformed"),
    "oversize": (lambda right: bytes(70_000), "oversize"),
    "crash": (lambda right: Error(code=1, reason="Boom"), "client-error"),
    "another kind": (lambda right: pb.ToServer(hello=pb.Hello()), "malformed"),
    "NaN": (update(coefficients=NAN), "not-finite"),
    "too short": (update(coefficients=b"1234"), "wrong-length"),
    "wrong bank": (bank_flipped, "wrong-bank"),
    "stale round": (update(round=0), "stale-round"),
    "later round": (update(round=9), "stale-round"),
    "unknown task": (update(task=9), "unknown-task"),
    "other task": (update(task=2), "unknown-task"),
    "too many examples": (update(examples=41), "too-many-examples"),
    "all the examples": (update(examples=2**32 - 1), "too-many-examples"),
    "no examples": (update(examples=0), "no-examples"),
    "failed": (lambda right: refusal(pb.Refusal.REASON_FAILED), "failed"),
    "one class": (lambda right: refusal(pb.Refusal.REASON_ONE_CLASS), "one-class"),
    "unheard-of": (lambda right: refusal(99), "malformed"),  # type: ignore[arg-type]
}


def test_a_round_averages_what_the_clients_send(federation: Make) -> None:
    made = federation(nodes=3)
    made.go()
    np.testing.assert_allclose(made.moved(1), np.full(6, 0.2), rtol=1e-3)
    (round_,) = made.registry.rounds(made.run, 1)
    assert (round_.clients, round_.examples, round_.round) == (3, 120, 1)
    assert made.reasons() == {}
    (accuracy,) = made.registry.accuracies(made.run)
    assert (accuracy.accuracy, accuracy.head_only_accuracy) == (0.75, 0.5)
    assert (accuracy.examples, accuracy.clients) == (60, 3)


@pytest.mark.parametrize("what", WRONG)
def test_a_wrong_answer_is_refused_and_the_others_are_unharmed(federation: Make, what: str) -> None:
    change, reason = WRONG[what]
    made = federation(nodes=3, scripts={3: on("train", change)}, tasks=2)
    made.go(rounds=1)
    np.testing.assert_allclose(made.moved(1), np.full(6, 0.15), rtol=1e-3)
    (round_,) = made.registry.rounds(made.run, 1)
    assert (round_.clients, round_.examples) == (2, 80)
    assert made.reasons() == {reason: 1}
    (refused,) = made.registry.refusals(made.run)
    assert (refused.client, refused.task, refused.round) == ("3", "t1", 1)


def test_a_replayed_update_counts_once(federation: Make) -> None:
    made = federation(nodes=3, scripts={3: on("train", lambda right: [right, right, right])})
    made.go()
    np.testing.assert_allclose(made.moved(1), np.full(6, 0.2), rtol=1e-3)
    assert made.reasons() == {"replayed": 2}


def test_the_update_of_an_earlier_round_is_stale(federation: Make) -> None:
    kept: list[pb.ToServer] = []

    def replay(question: pb.ToClient, right: pb.ToServer) -> object:
        if question.WhichOneof("body") == "train":
            kept.append(right)
            return kept[0]
        return right

    made = federation(nodes=2, scripts={2: replay}, rounds=3)
    made.go()
    assert made.reasons() == {"stale-round": 2}
    assert [entry.clients for entry in made.registry.rounds(made.run, 1)] == [2, 1, 1]


def test_a_server_killed_in_its_first_round_has_recorded_the_banks_that_it_sent(
    federation: Make, killed: type[BaseException]
) -> None:
    def die(right: pb.ToServer) -> object:
        raise killed

    made = federation(nodes=2, scripts={1: on("train", die)})
    with pytest.raises(killed):
        made.go()
    found = Ledger(made.registry).totals(made.run, by=("kind", "client", "direction", "layer"))
    payload = len(made.bank.to_bytes())
    assert [found["bank", node, "down", "payload"] for node in "12"] == [payload] * 2


def test_a_round_of_refusals_alone_is_no_round_and_ends_the_run(federation: Make) -> None:
    made = federation(nodes=2, scripts=dict.fromkeys((1, 2), on("train", lambda right: b"\xff")))
    with pytest.raises(RecastError, match="no update was accepted"):
        made.go()
    made.strategy.record_rest()
    assert made.registry.rounds(made.run, 1) == []
    assert made.reasons() == {"malformed": 2}
    assert made.grid.nodes[1].kinds().count("train") == 1


def evaluation(**values: int) -> Callable[[pb.ToServer], pb.ToServer]:
    def change(right: pb.ToServer) -> pb.ToServer:
        for name, value in values.items():
            setattr(right.evaluation, name, value)
        return right

    return change


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (evaluation(bank=1), "wrong-bank"),
        (evaluation(task=2), "unknown-task"),
        (evaluation(round=7), "stale-round"),
        (evaluation(correct=21), "malformed"),
        (evaluation(head_only_correct=21), "malformed"),
        (evaluation(examples=21), "too-many-examples"),
        (lambda right: b"\xff", "malformed"),
    ],
)
def test_a_wrong_evaluation_is_left_out(
    federation: Make, change: Callable[[pb.ToServer], object], reason: str
) -> None:
    made = federation(nodes=2, scripts={2: on("evaluate", change)})
    made.go()
    (accuracy,) = made.registry.accuracies(made.run)
    assert (accuracy.clients, accuracy.examples, accuracy.accuracy) == (1, 20, 0.75)
    assert made.reasons() == {reason: 1}


def test_the_ledger_holds_every_byte_that_was_handed_over(federation: Make) -> None:
    scripts = {2: on("train", lambda right: b"\xff" * 33), 3: on("evaluate", lambda right: b"")}
    made = federation(nodes=4, scripts=scripts, rounds=2, tasks=2, bits=8)
    made.go()
    made.strategy.evaluate_again(made.grid)
    found = Ledger(made.registry).totals(made.run, by=("client", "direction", "layer"))
    messages = {key[:2]: size for key, size in found.items() if key[2] == "message"}
    assert messages == {
        (str(node), direction): size for (node, direction), size in made.grid.bytes.items()
    }
    assert sum(made.grid.bytes.values()) > 0
    by_kind = Ledger(made.registry).totals(made.run, by=("kind", "direction", "layer"))
    assert by_kind["bank", "down", "payload"] == 4 * len(made.bank.to_bytes())
    assert by_kind["coefficients", "up", "payload"] == 3 * 2 * 2 * 6


def test_the_bank_crosses_once_and_only_to_those_that_lack_it(federation: Make) -> None:
    made = federation(nodes=3, rounds=3, tasks=2)
    made.grid.nodes[2].holds = True
    made.go()
    made.strategy.evaluate_again(made.grid)
    counts = {node: member.kinds().count("bank") for node, member in made.grid.nodes.items()}
    assert counts == {1: 1, 2: 0, 3: 1}
    assert all(member.kinds().count("hello") == 1 for member in made.grid.nodes.values())
    assert all(member.kinds().count("train") == 6 for member in made.grid.nodes.values())


def test_a_second_federation_with_the_same_nodes_sends_no_bank(federation: Make) -> None:
    first = federation(nodes=2)
    first.go()
    second = federation(nodes=2)
    second.grid.nodes = first.grid.nodes
    for member in second.grid.nodes.values():
        member.asked.clear()
    second.go()
    assert all("bank" not in member.kinds() for member in second.grid.nodes.values())
    assert second.registry.rounds(second.run, 1)[0].clients == 2


@pytest.mark.parametrize("reason", ["BANK_MISSING", "UNKNOWN_TASK", "BANK_MISMATCH"])
def test_a_node_that_forgot_is_greeted_again(federation: Make, reason: str) -> None:
    def forgetful(question: pb.ToClient, right: pb.ToServer) -> object:
        if question.WhichOneof("body") == "train" and question.train.round == 1:
            made.grid.nodes[2].holds = reason == "UNKNOWN_TASK"
            return refusal(pb.Refusal.Reason.Value(f"REASON_{reason}"))
        return right

    made = federation(nodes=2, scripts={2: forgetful}, rounds=3)
    made.go()
    member = made.grid.nodes[2]
    assert member.kinds().count("hello") == 2
    assert member.kinds().count("bank") == (1 if reason == "UNKNOWN_TASK" else 2)
    assert [entry.clients for entry in made.registry.rounds(made.run, 1)] == [1, 2, 2]
    assert made.reasons() == {reason.lower().replace("_", "-"): 1}


def test_a_node_that_says_in_each_round_that_it_lost_the_bank_is_sent_it_twice(
    federation: Make,
) -> None:
    def forgetful(question: pb.ToClient, right: pb.ToServer) -> object:
        if question.WhichOneof("body") == "train":
            made.grid.nodes[2].holds = False
            return refusal(pb.Refusal.REASON_BANK_MISSING)
        return right

    made = federation(nodes=2, scripts={2: forgetful}, rounds=10)
    made.go()
    assert made.grid.nodes[2].kinds().count("bank") == 2
    assert made.grid.nodes[2].kinds().count("hello") <= 3
    assert [entry.clients for entry in made.registry.rounds(made.run, 1)] == [1] * 10
    assert made.reasons() == {"bank-missing": 2, "bank-again": 1}


def test_a_node_that_refuses_for_another_reason_is_not_greeted_again(federation: Make) -> None:
    failing = on("train", lambda right: refusal(pb.Refusal.REASON_FAILED))
    made = federation(nodes=2, scripts={2: failing}, rounds=3)
    made.go()
    assert made.grid.nodes[2].kinds().count("hello") == 1
    assert made.reasons() == {"failed": 3}


def test_nodes_may_come_and_go_between_rounds(federation: Make) -> None:
    made = federation(nodes=3, rounds=3)
    late, leaver = made.grid.nodes.pop(3), made.grid.nodes[1]

    def come_and_go(question: pb.ToClient, right: pb.ToServer) -> object:
        if question.WhichOneof("body") == "train" and question.train.round == 1:
            made.grid.nodes[3] = late
            del made.grid.nodes[1]
        return right

    made.grid.nodes[2].script = come_and_go
    made.go()
    assert [entry.clients for entry in made.registry.rounds(made.run, 1)] == [2, 2, 2]
    assert leaver.kinds().count("train") == 1
    assert late.kinds().count("train") == 2


@pytest.mark.parametrize(
    "receipt", [pb.ToServer(bank=pb.BankReceipt(bank=5)), b"\xff", pb.ToServer(hello=pb.Hello())]
)
def test_a_node_that_did_not_keep_the_bank_is_left_out(federation: Make, receipt: object) -> None:
    made = federation(nodes=2, scripts={2: on("bank", lambda right: receipt)})
    made.go()
    assert "train" not in made.grid.nodes[2].kinds()
    assert made.registry.rounds(made.run, 1)[0].clients == 1
    assert sum(made.reasons().values()) == 1


def test_a_node_is_asked_only_for_tasks_that_it_can_train(federation: Make) -> None:
    made = federation(nodes=3, tasks=2)
    made.grid.nodes[2].tasks = (2,)
    made.grid.nodes[3].script = on("hello", one_class_in_task_one)
    made.go()
    asked = {
        node: [q.train.task for q in member.asked if q.WhichOneof("body") == "train"]
        for node, member in made.grid.nodes.items()
    }
    assert asked == {1: [1, 2], 2: [2], 3: [2]}


def one_class_in_task_one(right: pb.ToServer) -> pb.ToServer:
    right.hello.tasks[0].local_classes = 1
    return right


def test_a_task_that_nobody_can_learn_and_an_empty_federation_are_one_line(
    federation: Make,
) -> None:
    with pytest.raises(RecastError, match="no client is ready"):
        federation(nodes=0).go()
    made = federation(nodes=1, tasks=2)
    made.grid.nodes[1].tasks = (1,)
    with pytest.raises(UnlearnableError, match=r"no client has two classes .* task 't2'"):
        made.go()


def test_tasks_are_learned_one_after_another_from_the_banks_start(federation: Make) -> None:
    made = federation(nodes=2, tasks=2, rounds=2)
    made.go()
    np.testing.assert_allclose(made.moved(1), np.full(6, 0.3), rtol=1e-3)
    np.testing.assert_allclose(made.moved(2), np.full(6, 0.6), rtol=1e-3)
    trained = [
        (q.train.task, q.train.round, bool(q.train.coefficients))
        for q in made.grid.nodes[1].asked
        if q.WhichOneof("body") == "train"
    ]
    assert trained == [(1, 1, False), (1, 2, True), (2, 1, False), (2, 2, True)]


def test_a_task_is_evaluated_again_with_the_coefficients_that_it_ended_with(
    federation: Make,
) -> None:
    made = federation(nodes=1, tasks=3)
    made.grid.nodes[1].tasks = (1, 2, 3)
    made.go()
    made.strategy.evaluate_again(made.grid)
    asked = [q.evaluate for q in made.grid.nodes[1].asked if q.WhichOneof("body") == "evaluate"]
    assert [question.task for question in asked] == [1, 2, 3, 1, 2]
    assert asked[3] == asked[0]
    assert asked[4] == asked[1]
    found = [(a.task, a.after_task) for a in made.registry.accuracies(made.run)]
    assert found == [(1, 1), (2, 2), (3, 3), (1, 3), (2, 3)]


def test_several_tasks_of_one_round_are_averaged_each_for_itself(federation: Make) -> None:
    made = federation(nodes=3, tasks=2, rounds=2, parallel=2)
    made.grid.nodes[3].tasks = (2,)
    made.go(rounds=2)
    for round_ in (1, 2):
        np.testing.assert_allclose(made.moved(1, round_), np.full(6, 0.15 * round_), rtol=1e-3)
        np.testing.assert_allclose(made.moved(2, round_), np.full(6, 0.4 * round_), rtol=1e-3)
    assert [entry.clients for entry in made.registry.rounds(made.run, 1)] == [2, 2]
    assert [entry.clients for entry in made.registry.rounds(made.run, 2)] == [3, 3]


def test_a_client_cannot_count_twice_by_answering_for_another_of_its_tasks(
    federation: Make,
) -> None:
    first: dict[str, pb.ToServer] = {}

    def always_the_first(question: pb.ToClient, right: pb.ToServer) -> object:
        if question.WhichOneof("body") == "train":
            return first.setdefault("update", right)
        return right

    made = federation(nodes=3, scripts={3: always_the_first}, tasks=2, rounds=2, parallel=2)
    made.go(rounds=1)
    np.testing.assert_allclose(made.moved(1), np.full(6, 0.2), rtol=1e-3)
    np.testing.assert_allclose(made.moved(2), np.full(6, 0.3), rtol=1e-3)
    assert made.reasons() == {"replayed": 1}


def test_several_tasks_that_finish_in_one_round_are_all_evaluated(federation: Make) -> None:
    made = federation(nodes=2, tasks=2, parallel=2)
    made.go(rounds=1)
    assert [(a.task, a.clients) for a in made.registry.accuracies(made.run)] == [(1, 2), (2, 2)]
    assert made.reasons() == {}


def test_bytes_of_a_run_that_ends_before_its_first_round_are_recorded(federation: Make) -> None:
    made = federation(nodes=1, scripts={1: on("hello", lambda right: b"\xff")})
    with pytest.raises(RecastError, match="no client is ready"):
        made.go()
    made.strategy.record_rest()
    assert made.reasons() == {"malformed": 1}
