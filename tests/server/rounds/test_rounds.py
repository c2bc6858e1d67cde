"""Who trains what in a round, when it closes, and what becomes of those who come too late."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from flwr.app import Error
from flwr.serverapp.strategy import Strategy
from hypothesis import given
from hypothesis import strategies as st

from protos import recast_v1_pb2 as pb
from recast_core import RecastError
from recast_core.setting_values import parse_quorum
from recast_core.settings import Settings
from server.record.ledger import Ledger
from server.rounds.federation import sample

if TYPE_CHECKING:
    from conftest import Federation

Make = Callable[..., "Federation"]
DEADLINE = 100.0
NODES = st.lists(st.integers(1, 2**64 - 1), min_size=1, max_size=30, unique=True)


def after(seconds: float, kind: str = "train") -> Callable[[pb.ToClient], float]:
    return lambda question: seconds if question.WhichOneof("body") == kind else 0.0


# --- several tasks in one round ---------------------------------------------------------------


def test_tasks_in_parallel_share_rounds_and_the_next_begins_where_one_ends(
    federation: Make,
) -> None:
    made = federation(nodes=2, tasks=3, rounds=2, parallel=2)
    made.go()
    assert made.trained(1) == [(1, 1), (2, 1), (1, 2), (2, 2), (3, 1), (3, 2)]
    accuracies = [(a.task, a.after_task) for a in made.registry.accuracies(made.run)]
    assert accuracies == [(1, 1), (2, 2), (3, 3)]


def test_a_task_ends_in_the_same_bytes_whatever_is_learned_beside_it(federation: Make) -> None:
    one, both = federation(tasks=2, rounds=3, bits=8), federation(
        tasks=2, rounds=3, bits=8, parallel=2
    )  # fmt: skip
    one.go()
    both.go()
    for task in (1, 2):
        assert one.vector(task).tobytes() == both.vector(task).tobytes()


def test_the_bytes_of_parallel_tasks_are_counted_for_each(federation: Make) -> None:
    one, both = federation(tasks=2, rounds=2), federation(tasks=2, rounds=2, parallel=2)
    one.go()
    both.go()
    totals = [Ledger(made.registry).totals(made.run) for made in (one, both)]
    assert totals[0] == totals[1]
    assert {key[0] for key in totals[0]} == {None, "t1", "t2"}


def test_one_clients_refusal_of_one_task_is_counted_for_that_task(federation: Make) -> None:
    def refuses_two(question: pb.ToClient, right: pb.ToServer) -> object:
        return Error(1, "no") if question.train.task == 2 else right

    made = federation(nodes=2, tasks=2, parallel=2, scripts={2: refuses_two})
    made.go()
    (refusal,) = made.registry.refusals(made.run)
    assert (refusal.client, refusal.task, refusal.round) == ("2", "t2", 1)
    assert [made.registry.rounds(made.run, task)[0].clients for task in (1, 2)] == [2, 1]


def test_shares_that_nobody_asked_for_are_refused(federation: Make) -> None:
    def seals(question: pb.ToClient, right: pb.ToServer) -> object:
        if question.WhichOneof("body") == "train":
            right.update.salt, right.update.shares = bytes(16), bytes(40)
        return right

    made = federation(nodes=3, scripts={2: seals})
    made.go()
    refusals = made.registry.refusals(made.run)
    assert {(one.client, one.reason) for one in refusals} == {("2", "malformed")}
    assert {row.clients for row in made.registry.rounds(made.run, 1)} == {2}


# --- sampling ---------------------------------------------------------------------------------


@given(NODES, st.integers(0, 40), st.integers(0, 2**32 - 1), st.randoms(use_true_random=False))
def test_a_sample_does_not_depend_on_the_order_of_the_nodes(
    nodes: list[int], count: int, seed: int, chance: object
) -> None:
    numbered = [(node, node) for node in nodes]
    drawn = sample(numbered, count, seed, 1, 1)
    chance.shuffle(numbered)  # type: ignore[attr-defined]
    assert sample(numbered, count, seed, 1, 1) == drawn
    assert len(drawn) == len(set(drawn)) == (min(count, len(nodes)) or len(nodes))
    assert set(drawn) <= set(nodes)


@given(NODES, st.integers(1, 30), st.integers(0, 99))
def test_a_client_that_leaves_moves_at_most_one_other(
    nodes: list[int], count: int, seed: int
) -> None:
    numbered = [(node, node) for node in nodes]
    before = set(sample(numbered, count, seed, 1, 1))
    rest = set(sample(numbered[1:], count, seed, 1, 1))
    assert len(rest - before) <= 1


def test_a_sample_changes_with_seed_task_and_round_and_reaches_everybody() -> None:
    nodes = [(n, n) for n in range(1, 21)]
    draws = [
        tuple(sample(nodes, 5, seed, task, round_))
        for seed in range(3) for task in range(1, 4) for round_ in range(1, 10)
    ]  # fmt: skip
    assert len(set(draws)) > 0.9 * len(draws)
    counts = np.bincount(np.ravel(draws))[1:]
    assert counts.min() > 5
    assert counts.max() < 40


def test_clients_are_drawn_by_the_number_they_give_not_by_the_grids_id() -> None:
    here = [(node, number) for number, node in enumerate((11, 12, 13, 14, 15, 16), start=1)]
    there = [(node, number) for number, node in enumerate((90, 70, 80, 50, 60, 40), start=1)]
    for round_ in range(1, 20):
        numbers = [
            {number for node, number in nodes if node in sample(nodes, 2, 0, 1, round_)}
            for nodes in (here, there)
        ]
        assert numbers[0] == numbers[1]


def test_as_many_clients_train_as_are_sampled_and_all_evaluate(federation: Make) -> None:
    made = federation(nodes=6, tasks=2, rounds=3, clients_per_round=2)
    made.go()
    assert [entry.clients for entry in made.registry.rounds(made.run, 1)] == [2, 2, 2]
    assert sum(len(made.trained(node)) for node in made.grid.nodes) == 2 * 3 * 2
    assert [entry.clients for entry in made.registry.accuracies(made.run)] == [6, 6]
    again = federation(nodes=6, tasks=2, rounds=3, clients_per_round=2)
    again.go()
    assert [again.trained(n) for n in range(1, 7)] == [made.trained(n) for n in range(1, 7)]


def test_clients_that_give_the_same_number_are_told_apart(federation: Make) -> None:
    made = federation(nodes=4, rounds=20, clients_per_round=1)
    for member in made.grid.nodes.values():
        member.client = 1
    made.go()
    assert all(len(made.trained(node)) < 20 for node in made.grid.nodes)


# --- quorum and deadline ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "value"), [("all", 1.0), ("5", 5), ("0.8", 0.8), ("80%", 0.8), (" All ", 1.0)]
)
def test_a_quorum_is_a_count_or_a_share(text: str, value: float) -> None:
    found = parse_quorum(text)
    assert found == pytest.approx(value)
    assert isinstance(found, int) == isinstance(value, int)


@pytest.mark.parametrize("text", ["0", "-1", "1.5", "120%", "most", "", "nan", "0%"])
def test_another_quorum_is_refused(text: str) -> None:
    with pytest.raises(RecastError, match="cannot read quorum"):
        Settings(quorum=text)


@pytest.mark.parametrize(("quorum", "clients"), [(0.5, 2), (3, 3), (0.51, 3), (1.0, 4), (9, 4)])
def test_a_quorum_closes_the_round_early(federation: Make, quorum: float, clients: int) -> None:
    made = federation(nodes=4, quorum=quorum, deadline=DEADLINE)
    for node, member in made.grid.nodes.items():
        member.delay = after(10.0 * node)
    made.go()
    (round_,) = made.registry.rounds(made.run, 1)
    assert round_.clients == clients
    assert made.clock.now == pytest.approx(10 * clients, abs=2)


def test_refusals_do_not_count_towards_the_quorum(federation: Make) -> None:
    scripts = dict.fromkeys((1, 2), lambda question, right: Error(1, "no") if (
        question.WhichOneof("body") == "train") else right)  # fmt: skip
    made = federation(nodes=4, quorum=2, scripts=scripts)
    made.grid.nodes[4].delay = after(30)
    made.go()
    assert made.registry.rounds(made.run, 1)[0].clients == 2
    assert made.clock.now >= 30


def test_each_of_parallel_tasks_has_its_own_quorum(federation: Make) -> None:
    made = federation(nodes=4, tasks=2, parallel=2, quorum=2)
    made.grid.nodes[4].tasks = (1,)
    for node in (3, 4):
        made.grid.nodes[node].delay = lambda question: 50.0 * (question.train.task == 1)
    made.go()
    assert [made.registry.rounds(made.run, task)[0].clients for task in (1, 2)] == [2, 3]
    assert made.clock.now < 5


def test_a_round_closes_at_its_deadline(federation: Make) -> None:
    made = federation(nodes=3, deadline=DEADLINE)
    made.grid.nodes[3].delay = after(1e9)
    made.go()
    assert made.registry.rounds(made.run, 1)[0].clients == 2
    assert made.clock.now == pytest.approx(DEADLINE, abs=1)


def test_a_late_update_is_counted_as_late_and_used_nowhere(federation: Make) -> None:
    made = federation(nodes=3, rounds=2, quorum=2)
    made.grid.nodes[3].delay = lambda question: 5.0 * (question.train.round == 1)
    for node in (1, 2):
        made.grid.nodes[node].delay = lambda question: 10.0 * (question.train.round == 2)
    made.go()
    made.strategy.record_rest()
    assert [entry.clients for entry in made.registry.rounds(made.run, 1)] == [2, 3]
    np.testing.assert_allclose(made.moved(1, 1), np.full(6, 0.15), rtol=1e-3)
    (late,) = made.registry.refusals(made.run)
    assert (late.client, late.task, late.round, late.reason) == ("3", "t1", 1, "late")
    totals = Ledger(made.registry).totals(made.run, by=("direction", "layer"))
    assert totals["up", "message"] == sum(made.grid.bytes[node, "up"] for node in (1, 2, 3))


def test_a_client_that_never_answers_the_greeting_delays_the_first_round_only(
    federation: Make,
) -> None:
    made = federation(nodes=3, rounds=4, deadline=DEADLINE)
    made.grid.nodes[2].delay = after(1e9, "hello")
    made.go()
    assert [entry.clients for entry in made.registry.rounds(made.run, 1)] == [2] * 4
    assert made.clock.now == pytest.approx(DEADLINE, abs=1)
    assert made.reasons() == {"silent": 1}


def test_a_client_that_leaves_in_the_middle_of_a_round_does_not_hold_it_up(
    federation: Make,
) -> None:
    made = federation(nodes=3, rounds=2, deadline=3600.0)
    made.grid.nodes[3].delay = after(1e9)

    first = made.grid.push_messages

    def push(messages: object) -> object:
        names = list(first(messages))  # type: ignore[arg-type]
        if made.trained(1):
            made.grid.nodes.pop(3, None)
        return names

    made.grid.push_messages = push  # type: ignore[method-assign,assignment]
    made.go()
    assert [entry.clients for entry in made.registry.rounds(made.run, 1)] == [2, 2]
    assert made.clock.now < 30
    assert made.reasons() == {"gone": 1}


# --- rounds that bring nothing ----------------------------------------------------------------


def test_a_round_that_nobody_answered_is_tried_again(federation: Make) -> None:
    made = federation(nodes=2, rounds=2, deadline=DEADLINE)
    tries: list[int] = []

    def slow_at_first(question: pb.ToClient) -> float:
        if question.WhichOneof("body") != "train":
            return 0.0
        tries.append(question.train.round)
        return 1e9 if len(tries) <= 4 else 0.0

    for member in made.grid.nodes.values():
        member.delay = slow_at_first
    made.go()
    assert tries == [1, 1, 1, 1, 1, 1, 2, 2]
    assert [entry.clients for entry in made.registry.rounds(made.run, 1)] == [2, 2]


def test_silence_ends_the_run_with_one_line_after_two_more_tries(federation: Make) -> None:
    made = federation(nodes=2, deadline=DEADLINE)
    for member in made.grid.nodes.values():
        member.delay = after(1e9)
    with pytest.raises(RecastError, match="no client answered in round 1 of task 't1', 3 times"):
        made.go()
    assert len(made.trained(1)) == 3
    assert made.registry.rounds(made.run, 1) == []
    assert made.clock.now == pytest.approx(3 * DEADLINE, abs=3)
    # What was sent in vain belongs to no finished round: killed now, a server leaves none of it.
    ledger = Ledger(made.registry)
    by: tuple[Any, ...] = ("task", "round", "layer")
    assert {row[:2] for row in ledger.totals(made.run, by=by)} == {(None, 0)}, "the greetings alone"
    made.strategy.record_rest()
    assert ledger.totals(made.run, by=by)["t1", 1, "message"] > 0


def test_a_task_that_fails_costs_the_one_beside_it_no_round(federation: Make) -> None:
    def spoils_two(question: pb.ToClient, right: pb.ToServer) -> object:
        return b"\xff" if question.train.task == 2 else right

    made = federation(nodes=2, tasks=2, parallel=2, scripts=dict.fromkeys((1, 2), spoils_two))
    with pytest.raises(RecastError, match="no update was accepted in round 1 of task 't2'"):
        made.go()
    assert [entry.clients for entry in made.registry.rounds(made.run, 1)] == [2]
    assert made.registry.rounds(made.run, 2) == []


def test_flowers_own_loop_drives_the_strategy_to_the_same_coefficients(federation: Make) -> None:
    ours, flowers = federation(nodes=3, rounds=2), federation(nodes=3, rounds=2)
    ours.go()
    Strategy.start(flowers.strategy, flowers.grid, flowers.strategy.initial_arrays(), 3)
    assert flowers.vector(1).tobytes() == ours.vector(1).tobytes()
    assert len(flowers.registry.accuracies(flowers.run)) == 1


def test_clients_that_all_forgot_are_greeted_and_asked_again(federation: Make) -> None:
    def forgets_once(question: pb.ToClient, right: pb.ToServer) -> object:
        if question.WhichOneof("body") == "train" and len(made.trained(1)) == 1:
            reason = pb.Refusal.REASON_UNKNOWN_TASK
            return pb.ToServer(refusal=pb.Refusal(reason=reason, detail="no"))
        return right

    made = federation(nodes=1, scripts={1: forgets_once})
    made.go()
    assert made.grid.nodes[1].kinds() == ["hello", "bank", "train", "hello", "train", "evaluate"]
    assert made.registry.rounds(made.run, 1)[0].clients == 1


def test_an_answer_from_flower_for_a_node_that_is_away_is_counted_for_that_node(
    federation: Make,
) -> None:
    made = federation(nodes=2, scripts={2: lambda q, right: (
        Error(5, "Node Unavailable") if q.WhichOneof("body") == "train" else right)})  # fmt: skip
    made.go()
    (refusal,) = made.registry.refusals(made.run)
    assert (refusal.client, refusal.reason) == ("2", "gone")
