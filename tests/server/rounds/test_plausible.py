"""What cannot have been learned is refused, and what makes a probe wildly worse is not recorded."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pytest

from protos import recast_v1_pb2 as pb
from recast_core import RecastError
from recast_core.wire.codec import Vector, encode
from server.rounds.probe import Score
from server.rounds.rules.clipped import clipped_mean, clipped_shares
from server.rounds.state import TaskState

if TYPE_CHECKING:
    from conftest import Federation, Script

Make = Callable[..., "Federation"]
START = np.linspace(-1, 1, 6, dtype=np.float32)


def sends(value: float, rounds: tuple[int, ...] = ()) -> Script:
    """A client whose update has ``value`` in each place, in these rounds, or in all."""

    def script(question: pb.ToClient, right: pb.ToServer) -> object:
        wanted = not rounds or right.update.round in rounds
        if right.WhichOneof("body") == "update" and wanted:
            numbers = np.full(6, value, np.float32)
            right.update.coefficients = encode(numbers, 32).data
        return right

    return script


@dataclass
class Images:
    """A probe that looks at how far the coefficients have moved from where they started."""

    right: Callable[[float], float]
    each: bool = False

    def of(self, state: TaskState) -> Score:
        def score(vector: Vector) -> float:
            return self.right(float((vector - START).mean()))

        return score


def upwards(moved: float) -> float:
    return 0.9 if moved > -0.05 else 0.1


# --- lengths ----------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [65_000.0, -100.0, 9.0])
def test_a_huge_update_is_refused_and_the_others_count(federation: Make, value: float) -> None:
    made = federation(scripts={3: sends(value)}, rounds=2)
    made.go()
    assert made.reasons() == {"implausible": 2}
    np.testing.assert_allclose(made.moved(1, 1), 0.15, atol=1e-3)
    assert [row.clients for row in made.registry.rounds(made.run, 1)] == [2, 2]


def test_a_huge_update_that_is_alone_is_refused_and_nothing_is_recorded(federation: Make) -> None:
    made = federation(nodes=1, scripts={1: sends(60_000.0)})
    with pytest.raises(RecastError, match="implausible"):
        made.go()
    assert made.registry.rounds(made.run, 1) == []


def test_others_are_drawn_where_the_only_client_of_a_round_sends_a_huge_update(
    federation: Make,
) -> None:
    made = federation(nodes=4, scripts={2: sends(60_000.0)}, rounds=6, clients_per_round=1)
    made.go(40)
    assert len(made.registry.rounds(made.run, 1)) == 6
    assert float(np.abs(made.moved(1)).max()) < 6 * 0.4 + 1e-2


# --- a probe ----------------------------------------------------------------------------------


def test_an_update_that_makes_the_probe_wildly_worse_is_never_recorded(federation: Make) -> None:
    made = federation(scripts={3: sends(-0.98)}, rounds=2, probe=Images(upwards))
    made.go()
    assert made.reasons() == {"harmful": 2}
    for round_ in (1, 2):
        assert upwards(float(made.moved(1, round_).mean())) == 0.9
    np.testing.assert_allclose(made.moved(1, 1), 0.15, atol=1e-3)


def test_without_a_probe_that_update_would_have_counted(federation: Make) -> None:
    made = federation(scripts={3: sends(-0.9)})
    made.go()
    assert made.reasons() == {}
    np.testing.assert_allclose(made.moved(1), -0.2, atol=1e-3)


def test_a_round_that_only_together_is_wildly_worse_leaves_the_coefficients(
    federation: Make,
) -> None:
    def holed(moved: float) -> float:
        return 0.1 if 0.12 < moved < 0.18 else 0.9

    made = federation(nodes=2, probe=Images(holed))
    made.go()
    assert made.reasons() == {}
    np.testing.assert_allclose(made.moved(1), 0, atol=1e-3)
    held = {row.client: row.share for row in made.registry.held_back(made.run)}
    assert held == {"1": 0.0, "2": 0.0}


def test_images_of_the_servers_own_judge_each_update_beside_the_others(federation: Make) -> None:
    def falls(moved: float) -> float:
        return 0.9 if moved > -0.05 else 0.75

    together = federation(nodes=4, scripts={4: sends(-0.3)}, probe=Images(falls))
    together.go()
    assert together.reasons() == {}
    np.testing.assert_allclose(together.moved(1), 0.075, atol=1e-3)
    run = together.registry.start_run({}, together.bank.sha256, {}, "test")
    alone = federation(
        nodes=4, scripts={4: sends(-0.3)}, probe=Images(falls, each=True), run=run
    )  # fmt: skip
    alone.go()
    assert alone.reasons() == {"harmful": 1}
    np.testing.assert_allclose(alone.moved(1), 0.2, atol=1e-3)


def test_a_client_whose_every_update_is_harmful_does_not_end_the_run(federation: Make) -> None:
    made = federation(
        nodes=3, scripts={1: sends(-0.9)}, rounds=6, clients_per_round=1, probe=Images(upwards)
    )
    made.go(40)
    rounds = made.registry.rounds(made.run, 1)
    assert len(rounds) == 6
    assert all(upwards(float(made.moved(1, row.round).mean())) == 0.9 for row in rounds)


# --- who was left out before ----------------------------------------------------------------------


CLIPPED = {"aggregate": clipped_mean, "shares": clipped_shares}


def opposite(until: int) -> Script:
    """A client that sends the opposite of what others learn, and in later rounds less of it."""

    def script(question: pb.ToClient, right: pb.ToServer) -> object:
        if right.WhichOneof("body") == "update":
            numbers = np.full(6, -0.5, np.float32)
            if right.update.round > until:
                numbers = np.array([0.5, -0.5] * 3, np.float32)
            right.update.coefficients = encode(numbers, 32).data
        return right

    return script


def test_who_was_left_out_has_to_point_with_the_others_from_then_on(federation: Make) -> None:
    made = federation(nodes=5, scripts={1: opposite(until=1)}, rounds=3, **CLIPPED)
    made.go()
    out = [(row.round, row.client) for row in made.registry.held_back(made.run) if not row.share]
    assert out == [(1, "1"), (2, "1"), (3, "1")]
    # As it is for one that had pointed nowhere from the start.
    fresh = federation(nodes=5, scripts={1: opposite(until=0)}, rounds=3, **CLIPPED)
    fresh.go()
    assert not [row for row in fresh.registry.held_back(fresh.run) if not row.share]


def test_a_server_that_starts_again_doubts_the_same(federation: Make) -> None:
    whole = federation(nodes=5, scripts={1: opposite(until=1)}, rounds=3, **CLIPPED)
    whole.go()
    begun = federation(nodes=5, scripts={1: opposite(until=1)}, rounds=1, **CLIPPED)
    begun.go()
    again = federation(nodes=5, scripts={1: opposite(until=1)}, rounds=3, run=begun.run, **CLIPPED)
    again.go()
    one, other = (made.registry.rounds(made.run, 1) for made in (whole, again))
    assert [row.coefficients for row in one] == [row.coefficients for row in other]


def test_who_was_left_out_is_called_by_its_name(
    federation: Make, caplog: pytest.LogCaptureFixture
) -> None:
    made = federation(nodes=5, scripts={1: opposite(until=9)}, **CLIPPED)
    made.grid.names = lambda: {1: "edge-1"}  # type: ignore[attr-defined]
    with caplog.at_level(logging.INFO, "recast.server"):
        made.go()
    assert "the rule shortened or left out what came from edge-1" in caplog.text
