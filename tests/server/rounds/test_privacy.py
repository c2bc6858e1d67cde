"""A private run: what its rounds may use, what they cost, and that nothing of it is forgotten."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from protos import recast_v1_pb2 as pb
from recast_core import RecastError
from recast_core.privacy.accountant import Accountant, Mechanism
from recast_core.wire.codec import decode, encode
from server.record.rewinding import ask_rewind, rewind_asked
from server.record.rows import Spending
from server.rounds.privacy import PrivacyPlan

if TYPE_CHECKING:
    from conftest import Federation

Make = Callable[..., "Federation"]
DELTA = 1e-5


def private(**changes: Any) -> PrivacyPlan:
    told = {"kind": "central", "epsilon": 1.0, "delta": DELTA, "clip": None, "poisson": False}
    return PrivacyPlan(**{**told, "seed": 0, **changes})  # type: ignore[arg-type]


def spent(made: Federation) -> list[Spending]:
    return made.registry.spendings(made.run)


def cost(rows: list[Spending]) -> float:
    return Accountant(DELTA).epsilon(Mechanism(r.noise, r.rate, r.sampling) for r in rows)


def test_all_rounds_of_all_tasks_spend_the_budget_and_no_more(federation: Make) -> None:
    made = federation(nodes=5, tasks=2, rounds=3, privacy=private())
    made.go()
    rows = spent(made)
    assert [(row.task, row.round) for row in rows] == [(t, r) for t in (1, 2) for r in (1, 2, 3)]
    assert 0.99 < rows[-1].epsilon <= 1.0
    assert rows[-1].epsilon == pytest.approx(cost(rows))
    assert rows[-1].task_epsilon == pytest.approx(cost(rows[3:]))
    assert rows[-1].task_epsilon < rows[-1].epsilon
    assert len({row.noise for row in rows}) == 1


def test_parallel_tasks_share_the_budget(federation: Make) -> None:
    made = federation(nodes=3, tasks=2, rounds=2, parallel=2, privacy=private())
    made.go()
    rows = spent(made)
    assert [row.task for row in rows] == [1, 2, 1, 2]
    assert [row.epsilon for row in rows] == sorted(row.epsilon for row in rows)
    assert 0.99 < rows[-1].epsilon <= 1.0


def test_a_round_is_the_mean_of_clipped_updates_with_noise_of_the_accounted_size(
    federation: Make,
) -> None:
    # Updates of 0.1, 0.2, ... in each of 6 numbers: all are longer than the clip.
    plan = private(clip=0.01, epsilon=1e4)
    made = federation(nodes=4, privacy=plan)
    made.go()
    (row,) = spent(made)
    np.testing.assert_allclose(made.moved(1), 0.01 / np.sqrt(6), atol=4 * row.noise * 0.01 / 4)
    noisy = federation(nodes=4, privacy=private(clip=0.01))
    noisy.go()
    (row,) = spent(noisy)
    apart = noisy.moved(1) - 0.01 / np.sqrt(6)
    assert 0.2 < np.linalg.norm(apart) / (row.noise * 0.01 / 4 * np.sqrt(6)) < 3


def test_counts_of_examples_decide_nothing_and_one_client_moves_the_sum_by_its_clip(
    federation: Make,
) -> None:
    def heavy(question: pb.ToClient, right: pb.ToServer) -> object:
        if right.WhichOneof("body") == "update":
            right.update.examples = 1
            big = encode(np.full(6, 6e4, np.float32), 32)
            right.update.coefficients = big.data
        return right

    calm, moved = (
        federation(nodes=4, privacy=private(clip=0.01), scripts=scripts)
        for scripts in ({}, {4: heavy})
    )
    calm.go()
    moved.go()
    # The noise is the seed's, the same in both: what is left is the one client.
    assert np.linalg.norm(moved.moved(1) - calm.moved(1)) <= 2 * 0.01 / 4 + 1e-4


def test_who_does_not_answer_counts_as_nothing(federation: Make) -> None:
    def silent(question: pb.ToClient, right: pb.ToServer) -> object:
        return b"" if right.WhichOneof("body") == "update" else right

    whole, less = (
        federation(nodes=4, privacy=private(clip=0.01), scripts=scripts)
        for scripts in ({}, {4: silent})
    )
    whole.go()
    less.go()
    np.testing.assert_allclose(
        whole.moved(1) - less.moved(1), 0.01 / np.sqrt(6) / 4, atol=2e-4, rtol=0.1
    )


def test_the_same_seed_gives_the_same_bytes_and_another_or_none_others(federation: Make) -> None:
    def vector(seed: int | None) -> bytes:
        made = federation(nodes=3, rounds=2, privacy=private(seed=seed))
        made.go()
        assert all(row.seeded == (seed is not None) for row in spent(made))
        return made.vector(1).tobytes()

    assert vector(0) == vector(0)
    assert vector(0) != vector(1)
    assert vector(None) != vector(None)


def test_the_clip_finds_the_length_that_half_of_the_clients_have(federation: Make) -> None:
    # Lengths 0.24 to 2.2; the first clip is the learning rate's, 1e-2 for each of 6 numbers.
    made = federation(nodes=9, rounds=25, privacy=private(epsilon=1e5))
    made.go(100)
    rows = spent(made)
    assert rows[0].clip == pytest.approx(1e-2 * np.sqrt(6))
    assert rows[0].within == pytest.approx(0.0, abs=0.2)
    assert 0.7 < np.median([row.clip for row in rows[-8:]]) < 1.8


def test_killed_at_any_message_a_private_run_ends_the_same_and_counts_every_round_once(
    federation: Make,
) -> None:
    plan = {"nodes": 3, "tasks": 2, "rounds": 2, "privacy": private()}
    whole = federation(**plan)
    whole.go()
    killed = sys.modules[type(whole.grid).__module__].Killed
    for moment in range(1, whole.grid.events + 1):
        first = federation(**plan)
        first.grid.kill_at = moment
        with pytest.raises(killed):
            first.go()
        done = [(t.number, r.round) for t in first.registry.tasks(first.run)
                for r in first.registry.rounds(first.run, t.number)]  # fmt: skip
        assert [(row.task, row.round) for row in spent(first)] == done
        second = federation(**plan, run=first.run)
        second.go()
        assert spent(second) == spent(whole)
        assert second.vector(2).tobytes() == whole.vector(2).tobytes()


def test_a_task_that_comes_after_the_budget_is_spent_is_given_up_and_nothing_is_lost(
    federation: Make, caplog: pytest.LogCaptureFixture
) -> None:
    made = federation(nodes=3, rounds=2, privacy=private())
    made.go()
    made.registry.add_task(made.run, "late")
    made.go(6)
    assert "task late is given up: the privacy budget is spent" in caplog.text
    assert made.registry.last_rounds(made.run) == {1: 2}
    assert len(spent(made)) == 2


def test_a_run_whose_budget_is_spent_ends_with_one_line_and_keeps_its_rounds(
    federation: Make,
) -> None:
    made = federation(nodes=3, rounds=2, privacy=private())
    made.go()
    again = federation(nodes=3, rounds=3, privacy=private(), run=made.run)
    with pytest.raises(RecastError, match="budget is spent: epsilon"):
        again.go()
    assert again.registry.last_rounds(made.run) == {1: 2}


def test_a_drawn_share_is_accounted_as_it_was_drawn(federation: Make) -> None:
    for poisson in (False, True):
        made = federation(nodes=9, rounds=3, clients_per_round=3, privacy=private(poisson=poisson))
        made.go()
        rows = spent(made)
        assert {row.sampling for row in rows} == {"poisson" if poisson else "fixed"}
        assert {row.rate for row in rows} == {3 / 9}
        assert 0.98 < rows[-1].epsilon <= 1.0
    assert len({round_.clients for round_ in made.registry.rounds(made.run, 1)}) > 1


def test_a_round_for_which_nobody_was_drawn_is_noise_and_is_paid_for(federation: Make) -> None:
    plan = private(poisson=True)
    made = federation(nodes=3, rounds=12, clients_per_round=1, privacy=plan)
    made.go(40)
    clients = [round_.clients for round_ in made.registry.rounds(made.run, 1)]
    assert len(clients) == 12
    assert 0 in clients
    assert len(spent(made)) == 12


def test_clients_that_fail_are_asked_again_and_do_not_change_who_may_be_drawn(
    federation: Make,
) -> None:
    def fails(question: pb.ToClient, right: pb.ToServer) -> object:
        return b"" if right.WhichOneof("body") == "update" else right

    made = federation(nodes=3, rounds=6, clients_per_round=1, privacy=private(), scripts={2: fails})
    made.go(100)
    assert len(made.registry.rounds(made.run, 1)) == 6
    assert {row.rate for row in spent(made)} == {1 / 3}


def test_with_local_noise_clients_are_told_it_and_every_asking_is_paid_for(
    federation: Make,
) -> None:
    made = federation(nodes=3, rounds=3, privacy=private(kind="local", clip=0.5))
    lost = iter((b"",))
    made.grid.nodes[1].script = made.grid.nodes[2].script = made.grid.nodes[3].script = (
        lambda question, right: (
            next(lost, right)
            if right.WhichOneof("body") == "update" and question.train.round == 2
            else right
        )
    )
    made.go()
    rows = spent(made)
    told = [
        question.train.hyperparameters.transforms
        for question in made.grid.nodes[1].asked
        if question.WhichOneof("body") == "train"
    ]
    assert told == [f"gaussian:0.5:{2 * 0.5 * row.noise:.9g}" for row in rows]
    assert rows[-1].epsilon == pytest.approx(cost(rows))
    assert rows[-1].epsilon <= 1.0


def test_a_killed_run_with_local_noise_pays_for_what_was_asked_in_vain(federation: Make) -> None:
    plan = {"nodes": 3, "rounds": 3, "privacy": private(kind="local")}
    whole = federation(**plan)
    whole.go()
    killed = sys.modules[type(whole.grid).__module__].Killed
    paid_twice = 0
    for moment in range(1, whole.grid.events + 1):
        first = federation(**plan)
        first.grid.kill_at = moment
        with pytest.raises(killed):
            first.go()
        asked = len(first.trained(1))
        assert len(spent(first)) >= asked
        second = federation(**plan, run=first.run)
        second.grid.nodes = first.grid.nodes
        with suppress(RecastError):  # where too little was left, as below
            second.go()
        assert len(spent(second)) >= len(second.trained(1))
        assert spent(second)[-1].epsilon == pytest.approx(cost(spent(second)))
        assert spent(second)[-1].epsilon <= 1.0
        paid_twice += len(spent(second)) > 3
    assert paid_twice


def test_with_local_noise_what_no_noise_can_explain_is_refused(federation: Make) -> None:
    def huge(question: pb.ToClient, right: pb.ToServer) -> object:
        if right.WhichOneof("body") == "update":
            sent = encode(np.full(6, 1000.0, np.float32), 8)
            right.update.scale, right.update.coefficients = sent.scale, sent.data
        return right

    plan = private(kind="local", clip=0.5)
    made = federation(nodes=3, rounds=2, bits=8, privacy=plan, scripts={2: huge})
    made.go()
    refusals = made.registry.refusals(made.run)
    assert {(one.client, one.reason) for one in refusals} == {("2", "implausible")}
    assert [row.clients for row in made.registry.rounds(made.run, 1)] == [2, 2]
    assert np.abs(made.vector(1)).max() < 100
    honest = federation(nodes=3, rounds=2, bits=8, privacy=plan)
    honest.go()
    assert not honest.registry.refusals(honest.run)


def test_rounded_updates_are_bounded_as_they_arrive(federation: Make) -> None:
    def rounded(question: pb.ToClient, right: pb.ToServer) -> object:
        if right.WhichOneof("body") == "update":
            offsets = np.linspace(0.004, 0.0041, 6, dtype=np.float32)
            encoded = encode(offsets, 3)
            assert np.linalg.norm(decode(encoded, 6, 3)) > np.linalg.norm(offsets)
            right.update.coefficients, right.update.scale = encoded.data, encoded.scale
        return right

    clip = float(np.linalg.norm(np.linspace(0.004, 0.0041, 6)))
    made = federation(
        nodes=1, bits=3, privacy=private(clip=clip, epsilon=1e9), scripts={1: rounded}
    )
    made.go()
    assert np.linalg.norm(made.moved(1)) <= clip * 1.01


def test_what_is_spent_never_goes_down_when_a_task_goes_back(federation: Make) -> None:
    made = federation(nodes=4, rounds=3, privacy=private())
    made.go()
    before = spent(made)
    ask_rewind(made.registry, made.run, "t1", 1)
    rewind_asked(made.registry, made.run)
    assert spent(made) == before
    again = federation(nodes=4, rounds=3, run=made.run, privacy=private())
    # The budget is spent: the rounds that were undone are not made again for nothing.
    with pytest.raises(RecastError, match="budget"):
        again.go()
    assert spent(again) == before
    assert again.registry.last_rounds(again.run) == {1: 1}


def test_a_task_that_goes_back_halfway_pays_for_its_rounds_again(federation: Make) -> None:
    made = federation(nodes=4, rounds=4, privacy=private())
    made.go(2)
    before = spent(made)
    ask_rewind(made.registry, made.run, "t1", 0)
    rewind_asked(made.registry, made.run)
    again = federation(nodes=4, rounds=4, run=made.run, privacy=private())
    again.go()
    rows = spent(again)
    assert rows[: len(before)] == before
    assert [row.round for row in rows[len(before) :]] == [1, 2, 3, 4]
    assert [row.epsilon for row in rows] == sorted(row.epsilon for row in rows)
    assert rows[-1].epsilon == pytest.approx(cost(rows))
    assert rows[-1].epsilon <= 1.0
