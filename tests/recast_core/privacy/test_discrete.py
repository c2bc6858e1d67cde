"""Noise for integers: distributed as it is accounted, and costed no lower than it is worth."""

from __future__ import annotations

import math

import numpy as np
import pytest

from recast_core.privacy.accountant import Accountant, Mechanism
from recast_core.privacy.discrete import discrete_gaussian
from recast_core.privacy.noise import secure_uniform, seeded_uniform

DELTA = 1e-5


@pytest.mark.parametrize("deviation", [0.6, 2.0, 7.3])
def test_each_integer_is_as_probable_as_it_should_be(deviation: float) -> None:
    count = 200_000
    drawn = discrete_gaussian(seeded_uniform(3), deviation, count)
    reach = math.ceil(4 * deviation)
    points = np.arange(-60, 61)
    weights = np.exp(-(points**2) / (2 * deviation**2))
    for point, share in zip(points, weights / weights.sum(), strict=True):
        if abs(point) <= reach:
            spread = math.sqrt(share * (1 - share) / count)
            assert abs((drawn == point).mean() - share) < 5 * spread + 1e-9
    assert drawn.var() == pytest.approx((weights * points**2).sum() / weights.sum(), rel=0.02)


def test_a_seed_repeats_the_noise_and_the_system_does_not() -> None:
    def drawn(*seeds: int) -> list[int]:
        source = seeded_uniform(*seeds) if seeds else secure_uniform()
        return discrete_gaussian(source, 50.0, 40).tolist()

    assert drawn(1, 2) == drawn(1, 2)
    assert drawn(1, 2) != drawn(1, 3)
    assert drawn() != drawn()
    assert all(0 < number < 1 for number in secure_uniform()(1000))


def test_discrete_noise_costs_no_less_than_continuous_and_not_much_more() -> None:
    plain, whole = Accountant(DELTA), Accountant(DELTA, discrete=True)
    assert whole.epsilon([]) == 0
    for noise in (0.8, 2.0, 12.0, 80.0):
        told = [Mechanism(noise)] * 6
        assert plain.epsilon(told) <= whole.epsilon(told) <= 1.25 * plain.epsilon(told)
    # What is drawn is not counted: those of a sum know of each other.
    assert whole.epsilon([Mechanism(2.0, 0.1, "fixed")]) == whole.epsilon([Mechanism(2.0)])


def test_the_least_noise_for_a_budget_keeps_it() -> None:
    whole = Accountant(DELTA, discrete=True)
    noise = whole.noise_for(1.0, [Mechanism(40.0)], [(1.0, "all")] * 5)
    assert 0.98 < whole.epsilon([Mechanism(40.0), *[Mechanism(noise)] * 5]) <= 1.0
