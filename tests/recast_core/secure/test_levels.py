"""How hidden updates are counted where they have a bound: nothing is longer, or has less noise."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from recast_core.privacy.noise import seeded_uniform
from recast_core.secure.levels import (
    Levels,
    clipped_plan,
    levels_of,
    private_plan,
    told,
)
from recast_core.secure.shamir import threshold

NUMBERS = 48
PLANS = [
    private_plan(members, clip, noise, NUMBERS, bits, within=within)
    for members, clip, noise, bits, within in itertools.product(
        (3, 10, 32), (1e-3, 0.37), (0.0, 0.4, 9.0, 300.0), (1, 8), (False, True)
    )
] + [clipped_plan([40] * 9, 9, 0.2, NUMBERS, 4)]


def spread(rows: np.ndarray) -> np.ndarray:
    return np.linalg.norm(rows.astype(np.float64), axis=-1)


@pytest.mark.parametrize("levels", PLANS)
def test_no_term_is_longer_than_the_clip_times_its_weight(levels: Levels) -> None:
    generator = np.random.default_rng(0)
    reach = levels.step * levels.levels
    for size in (0.3, 1.0, 1.0000001, 30.0, 1e30):
        row = generator.standard_normal(NUMBERS)
        row *= size * reach / np.linalg.norm(row)
        # Many numbers of just above half a step: rounding makes them longer.
        for offsets in (row, np.full(NUMBERS, 0.51 * levels.step)):
            term = levels.term(offsets.astype(np.float32), 10**9)
            assert spread(term[:NUMBERS]) <= levels.levels * levels.heaviest
            assert len(term) == NUMBERS + levels.within
    if levels.within:
        assert levels.term(np.full(NUMBERS, reach, np.float32), 1)[-1] == -1
        assert levels.term(np.zeros(NUMBERS, np.float32), 1)[-1] == 1


@pytest.mark.parametrize("levels", PLANS)
def test_what_is_told_is_what_is_counted_and_nothing_is_rounded_to_less_noise(
    levels: Levels,
) -> None:
    assert levels_of(type(told(levels)).FromString(told(levels).SerializeToString())) == levels
    assert 2 * levels.levels * levels.heaviest < levels.field.prime


def test_the_step_is_rounded_to_a_shorter_clip_and_the_deviation_to_more_noise() -> None:
    for clip, noise in itertools.product((0.1, 0.3, 1.7), (0.7, 3.3, 15.8)):
        levels = private_plan(10, clip, noise, NUMBERS, 8, within=False)
        assert clip * (1 - 1e-6) < levels.step * levels.levels <= clip
        assert noise <= levels.deviation / levels.levels < noise * (1 + 1e-6)


@pytest.mark.parametrize("members", [3, 4, 5, 10, 31, 32])
def test_those_who_do_not_help_the_server_have_all_of_the_noise(members: int) -> None:
    levels = private_plan(members, 0.1, 2.0, NUMBERS, 8, within=False)
    # As few as open a sum, without as many as may help the server.
    honest = threshold(members) - (members - threshold(members))
    draws = 400
    total = sum(levels.noise(seeded_uniform(n), members, draws * NUMBERS) for n in range(honest))
    assert np.std(np.asarray(total)) == pytest.approx(levels.deviation, rel=0.03)
    every = sum(levels.noise(seeded_uniform(n), members, NUMBERS) for n in range(members))
    clipped = np.full(NUMBERS, levels.levels // 7)
    assert levels.is_plausible(members * clipped + every, members)
    assert not levels.is_plausible(np.full(NUMBERS, levels.field.prime // 3), members)


def test_noise_too_small_to_hide_integers_is_refused() -> None:
    with pytest.raises(ValueError, match="cannot hide integers"):
        Levels(3, 100, 0.01, 1.0, clips=True, alike=True, deviation=3.0).noise(
            seeded_uniform(0), 10, 4
        )


def test_sums_that_are_too_long_are_shortened_and_come_no_further_apart() -> None:
    levels, generator = (
        private_plan(10, 0.1, 0.0, NUMBERS, 8, within=False),
        np.random.default_rng(1),
    )
    for size in (0.5, 3.0, 50.0):
        one = np.rint(generator.standard_normal(NUMBERS) * size * levels.levels).astype(np.int64)
        other = one + levels.term(generator.standard_normal(NUMBERS).astype(np.float32), 1)
        first, second = levels.total(one, 10), levels.total(other, 10)
        assert np.linalg.norm(first) <= 10 * 0.1 * (1 + 1e-9)
        assert np.linalg.norm(first - second) <= 0.1 * (1 + 1e-9)
