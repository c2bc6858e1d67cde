"""A fleet's decisions come from its seed, and are refused when out of range."""

from __future__ import annotations

import pytest

from experiments.engines.fleet import Fleet
from recast_core.errors import RecastError


def test_shares_of_clients_away_and_answers_dropped_are_those_asked_for() -> None:
    fleet = Fleet(availability=0.9, drop_out=0.1)
    away = sum(fleet.away(0, "a", r, c) for r in range(20) for c in range(100))
    lost = sum(fleet.drops(0, "a", r, c) for r in range(20) for c in range(100))
    assert 140 < away < 260
    assert 140 < lost < 260


def test_drop_out_does_not_change_who_is_away_or_how_fast() -> None:
    calm, rough = Fleet(availability=0.5, stragglers=1.0), Fleet(0.5, 0.9, 1.0)
    for client in range(50):
        assert calm.away(3, "a", 1, client) == rough.away(3, "a", 1, client)
        assert calm.slowness(3, client) == rough.slowness(3, client)


def test_an_answer_after_the_limit_is_a_straggler() -> None:
    slow = Fleet(round_limit=1.0, image_seconds=0.1)
    assert slow.fate(0, "a", 1, 0, 10, 20) == "answers"
    assert slow.fate(0, "a", 1, 0, 11, 20) == "straggler"
    assert Fleet(round_limit=1.0, radio="lorawan-dr0").fate(0, "a", 1, 0, 0, 20) == "straggler"


@pytest.mark.parametrize(
    "values", [{"availability": 1.1}, {"drop_out": -0.1}, {"stragglers": float("nan")},
               {"radio": "lorawan"}],
)  # fmt: skip
def test_values_out_of_range_are_refused(values: dict[str, float | str]) -> None:
    with pytest.raises(RecastError):
        Fleet(**values)  # type: ignore[arg-type]
