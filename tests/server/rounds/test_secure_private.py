"""Hidden sums with a budget: of clipped terms, with all of the noise, and paid for before."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import suppress
from itertools import count
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

import numpy as np
import pytest

from protos import recast_v1_pb2 as pb
from recast_core import RecastError
from recast_core.privacy.accountant import Accountant, Mechanism
from recast_core.privacy.discrete import discrete_gaussian
from recast_core.privacy.noise import seeded_uniform
from recast_core.secure.levels import Levels, levels_of
from recast_core.wire.codec import Vector
from recast_core.wire.messages import RefusedError
from server.record.rows import Spending
from server.rounds.privacy import PrivacyPlan
from server.rounds.state import TaskState
from tests.server.rounds.test_secure import Client, D, away, fleet

if TYPE_CHECKING:
    from conftest import Federation

Make = Callable[..., "Federation"]
DELTA, CLIP = 1e-5, 0.01


def private(**changes: Any) -> PrivacyPlan:
    plan: dict[str, Any] = {
        "kind": "central", "epsilon": 1.0, "delta": DELTA, "clip": CLIP, "poisson": False,
        "seed": 0, "hidden": True,
    }  # fmt: skip
    return PrivacyPlan(**plan | changes)


def spent(made: Federation) -> list[Spending]:
    return made.registry.spendings(made.run)


def cost(rows: list[Spending]) -> float:
    told = [Mechanism(r.noise, r.rate, r.sampling) for r in rows]
    return Accountant(DELTA, discrete=rows[0].kind == "distributed").epsilon(told)


def shortened(client: Client) -> np.ndarray:
    return client.offsets * min(1.0, CLIP / np.linalg.norm(client.offsets))


def noiseless(uniform: object, deviation: float, count: int) -> np.ndarray:
    return np.zeros(count, np.int64)


def test_central_the_round_is_the_mean_of_terms_that_clients_clipped_and_the_servers_noise(
    federation: Make,
) -> None:
    clients = fleet(5)
    made = federation(nodes=5, scripts=clients, secure=True, privacy=private(epsilon=1e5))
    made.go()
    mean = sum(map(shortened, clients.values())) / 5
    (row,) = spent(made)
    apart = made.moved(1) - mean
    assert np.linalg.norm(apart) < 4 * np.sqrt(D) * row.noise * CLIP / 5 + 1e-4
    told = clients[1].told[0]
    assert (told.clips, told.alike, told.within, told.deviation) == (True, True, False, 0.0)
    noisy = federation(nodes=5, scripts=fleet(5), secure=True, privacy=private())
    noisy.go()
    (row,) = spent(noisy)
    apart = noisy.moved(1) - mean
    assert 0.2 < np.linalg.norm(apart) / (row.noise * CLIP / 5 * np.sqrt(D)) < 3


def test_distributed_all_of_the_noise_is_in_the_sum_and_the_server_adds_none(
    federation: Make,
) -> None:
    clients = fleet(5)
    plan = private(kind="distributed")
    with patch("recast_core.secure.levels.discrete_gaussian", noiseless):
        calm = federation(nodes=5, scripts=clients, secure=True, privacy=plan)
        calm.go()
    mean = sum(map(shortened, clients.values())) / 5
    np.testing.assert_allclose(calm.moved(1), mean, rtol=2e-3, atol=1e-5)
    moved, seeds = [], count()

    def drawn(uniform: object, deviation: float, numbers: int) -> np.ndarray:
        # Clients draw from a secret of their own: with that one run in some hundreds would fail.
        return discrete_gaussian(seeded_uniform(next(seeds)), deviation, numbers)

    for _ in range(12):
        noisy = federation(nodes=5, scripts=fleet(5), secure=True, privacy=plan)
        with patch("recast_core.secure.levels.discrete_gaussian", drawn):
            noisy.go()
        (row,) = spent(noisy)
        moved.append(noisy.moved(1) - mean)
    assert next(seeds) == 12 * 5
    # Five of five, where three must do: the deviation of the whole by the root of 5/3.
    wanted = row.noise * CLIP * np.sqrt(5 / 3) / 5
    assert np.std(moved) == pytest.approx(wanted, rel=0.25)
    assert row.kind == "distributed"
    assert (row.rate, row.sampling, row.clip) == (1.0, "all", CLIP)
    assert 0.94 < row.epsilon <= 0.95  # the rest is kept
    assert row.epsilon == pytest.approx(cost([row]))


@pytest.mark.parametrize("phase", ["train", "open"])
def test_who_drops_out_takes_no_noise_away_and_what_is_asked_again_is_paid_again(
    federation: Make, phase: str
) -> None:
    parts: list[float] = []

    def noted(uniform: Any, deviation: float, count: int) -> np.ndarray:
        parts.append(deviation)
        return discrete_gaussian(uniform, deviation, count)

    for gone in ((1, 2), (1, 2, 3)):
        parts.clear()
        clients = fleet(7, **{phase: dict.fromkeys(gone, away)})
        made = federation(
            nodes=7,
            scripts=clients,
            rounds=2,
            secure=True,
            privacy=private(kind="distributed"),
        )
        with (
            patch("recast_core.secure.levels.discrete_gaussian", noted),
            suppress(RecastError),  # of seven five must be there, and too little is left
        ):
            made.go()
        rows = spent(made)
        assert len(rows) == len(made.trained(7)) == (2 if len(gone) == 2 else 3)
        assert len(made.registry.rounds(made.run, 1)) == (2 if len(gone) == 2 else 0)
        assert rows[-1].epsilon == pytest.approx(cost(rows))
        assert rows[-1].epsilon <= 1.0
        # Of five that are in a sum two may help the server: three parts are the whole.
        told = levels_of(clients[7].told[0])
        assert parts[0] * np.sqrt(3) == pytest.approx(told.deviation)
        assert told.deviation / told.levels >= rows[0].noise


def test_killed_at_any_message_every_asking_for_clients_noise_has_been_paid_for(
    federation: Make,
) -> None:
    plan = {"nodes": 3, "rounds": 2, "secure": True, "privacy": private(kind="distributed")}
    whole = federation(**plan, scripts=fleet(3))
    whole.go()
    assert len(spent(whole)) == 2
    killed = sys.modules[type(whole.grid).__module__].Killed
    paid_twice = 0
    for moment in range(1, whole.grid.events + 1):
        first = federation(**plan, scripts=fleet(3))
        first.grid.kill_at = moment
        with pytest.raises(killed):
            first.go()
        assert len(spent(first)) >= len(first.trained(1))
        second = federation(**plan, run=first.run)
        second.grid.nodes = first.grid.nodes
        second.go()  # the last round too, with what was kept for it
        assert second.registry.last_rounds(second.run) == {1: 2}
        rows = spent(second)
        assert len(rows) >= len(second.trained(1))
        assert rows[-1].epsilon == pytest.approx(cost(rows))
        assert rows[-1].epsilon <= 1.0
        paid_twice += len(rows) > 2
    assert paid_twice


def test_killed_at_any_message_the_servers_noise_is_paid_for_once_and_the_end_is_the_same(
    federation: Make,
) -> None:
    plan = {"nodes": 3, "rounds": 2, "secure": True, "privacy": private(clip=None)}
    whole = federation(**plan, scripts=fleet(3))
    whole.go()
    killed = sys.modules[type(whole.grid).__module__].Killed
    for moment in range(1, whole.grid.events + 1):
        clients = fleet(3)
        first = federation(**plan, scripts=clients)
        first.grid.kill_at = moment
        with pytest.raises(killed):
            first.go()
        assert len(spent(first)) == len(first.registry.rounds(first.run, 1))
        second = federation(**plan, scripts=clients, run=first.run)
        second.go()
        assert spent(second) == spent(whole)
        assert second.vector(1).tobytes() == whole.vector(1).tobytes()


def test_a_clip_that_follows_the_clients_learns_how_many_were_within_from_the_sum_alone(
    federation: Make,
) -> None:
    # Lengths 0.17 to 1.5; the first clip is the learning rate's, 1e-2 for each of 6 numbers.
    plan = private(clip=None, epsilon=1e5)
    clients = fleet(9)
    made = federation(nodes=9, scripts=clients, rounds=25, secure=True, privacy=plan)
    made.go(100)
    rows = spent(made)
    assert rows[0].within == pytest.approx(0.0, abs=0.2)
    lengths = [float(np.linalg.norm(client.offsets)) for client in clients.values()]
    assert min(lengths[2:]) < np.median([row.clip for row in rows[-8:]]) < max(lengths[:7])
    openly = private(clip=None, epsilon=1e5, hidden=False)
    plain = federation(nodes=9, rounds=3, privacy=openly)
    plain.go()
    assert [row.noise for row in rows[:3]] != [0.0] * 3
    assert all(told.within for told in clients[1].told)


def test_one_that_counts_itself_within_the_clip_many_times_is_left_out(federation: Make) -> None:
    def term(self: Levels, offsets: Vector, examples: int) -> np.ndarray:
        found = right(self, offsets, examples)
        if np.array_equal(offsets, clients[4].offsets):
            found[-1] = self.levels
        return found

    right, clients = Levels.term, fleet(9)
    with patch.object(Levels, "term", term):
        plan = private(clip=None, epsilon=1e5)
        made = federation(nodes=9, scripts=clients, rounds=6, secure=True, privacy=plan)
        made.go()
    assert made.reasons() == {"spoils-sums": 1}
    assert {refusal.client for refusal in made.registry.refusals(made.run)} == {"4"}
    assert made.registry.rounds(made.run, 1)[-1].clients == 8


@pytest.mark.parametrize("kind", ["central", "distributed"])
def test_one_that_does_not_clip_is_not_seen_and_moves_the_sum_no_further_than_all_could(
    federation: Make, kind: str
) -> None:
    def term(self: Levels, offsets: Vector, examples: int) -> np.ndarray:
        if not np.array_equal(offsets, clients[4].offsets):
            return right(self, offsets, examples)
        return np.full(D, self.levels, np.int64)  # longer than the clip by the root of D

    right, clients = Levels.term, fleet(6)
    plan = private(kind=kind, epsilon=1e5)
    with patch.object(Levels, "term", term):
        made = federation(nodes=6, scripts=clients, secure=True, privacy=plan)
        made.go()
    assert made.reasons() == {}
    assert made.registry.rounds(made.run, 1)[0].clients == 6
    assert np.linalg.norm(made.moved(1)) <= CLIP * 1.1


def test_a_budget_that_is_spent_ends_the_run_and_a_task_that_is_too_late(
    federation: Make, caplog: pytest.LogCaptureFixture
) -> None:
    plan = {"nodes": 3, "secure": True, "privacy": private(kind="distributed")}
    made = federation(**plan, rounds=2, scripts=fleet(3))
    made.go()
    made.registry.add_task(made.run, "late")
    made.go(6)
    assert "task late is given up: the privacy budget is spent" in caplog.text
    again = federation(**plan, rounds=3, scripts=fleet(3), run=made.run)
    with pytest.raises(RecastError, match="budget is spent: epsilon"):
        again.go()
    assert len(spent(again)) == 2


@pytest.mark.parametrize("kind", ["central", "distributed", "local"])
def test_tasks_that_are_learned_at_once_share_the_budget_evenly(
    federation: Make, kind: str
) -> None:
    hidden = kind != "local"
    made = federation(
        nodes=4, scripts=fleet(4) if hidden else None, rounds=3, tasks=3, parallel=3,
        secure=hidden, privacy=private(kind=kind, hidden=hidden),
    )  # fmt: skip
    made.go()
    rows = spent(made)
    assert len(rows) == 9
    assert len({row.noise for row in rows}) == 1
    assert rows[-1].epsilon == pytest.approx(cost(rows))
    kept = 0.05 if kind == "distributed" else 0.0
    assert 0.98 * (1 - kept) < rows[-1].epsilon <= 1 - kept


def test_too_few_for_a_sum_are_asked_nothing_and_pay_nothing(federation: Make) -> None:
    plan = private(kind="distributed")
    made = federation(nodes=2, scripts=fleet(2), secure=True, privacy=plan)
    with pytest.raises(RecastError):
        made.go()
    assert spent(made) == []
    assert made.registry.rounds(made.run, 1) == []


def test_drawing_saves_nothing_where_those_of_a_sum_know_of_each_other(federation: Make) -> None:
    made = federation(
        nodes=9, scripts=fleet(9), rounds=2, clients_per_round=3, secure=True, privacy=private()
    )
    made.go()
    assert {(row.rate, row.sampling) for row in spent(made)} == {(1.0, "all")}
    assert [round_.clients for round_ in made.registry.rounds(made.run, 1)] == [3, 3]


def test_noise_that_cannot_hide_integers_is_not_added_and_nothing_is_sent() -> None:
    client = Client(1)
    others = [Client(n).hiding.keep_keys(pb.KeyRequest()).member for n in (2, 3)]
    own = client.hiding.keep_keys(pb.KeyRequest()).member
    client.hiding.keep_keys(pb.KeyRequest(roster=5, members=[own, *others]))
    for deviation in (1e-3, float("nan"), float("inf"), -1.0):
        told = pb.SecureRound(
            roster=5, nonce=1, width=3, levels=1000, step=1e-3, unit=1.0, clips=True, alike=True,
            deviation=deviation,
        )  # fmt: skip
        with pytest.raises(RefusedError, match=r"cannot (hide integers|be counted)"):
            client.hiding.seal(np.zeros(D, np.float32), 1, pb.Broadcast(secure=told))


class Sees:
    """A probe that holds with coefficients as long as they are short."""

    each = True

    def of(self, state: TaskState) -> Callable[[Vector], float]:
        initial = state.vector.copy()
        return lambda vector: 0.9 if np.linalg.norm(vector - initial) < 1e-3 else 0.1


@pytest.mark.parametrize("budget", [None, private(epsilon=1e5)])
def test_a_probe_judges_the_sum_and_the_coefficients_stay_where_it_is_far_worse(
    federation: Make, budget: PrivacyPlan | None
) -> None:
    made = federation(nodes=4, scripts=fleet(4), secure=True, probe=Sees(), privacy=budget)
    made.go()
    assert not made.moved(1).any()
    assert len(made.registry.held_back(made.run, 1, 1)) == 4
    assert len(spent(made)) == (budget is not None)


def test_a_clip_without_a_budget_bounds_terms_by_their_weight(federation: Make) -> None:
    clients = fleet(5)
    made = federation(nodes=5, scripts=clients, secure=True, clip=CLIP)
    made.go()
    np.testing.assert_allclose(
        made.moved(1), sum(map(shortened, clients.values())) / 5, rtol=2e-3, atol=1e-5
    )
    assert spent(made) == []
