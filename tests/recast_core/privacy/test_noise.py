"""Noise is Gaussian; it repeats by its seed in an experiment, and never otherwise."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import kstest

from recast_core.privacy.noise import Noise, secure_noise, seeded_noise


@pytest.mark.parametrize("noise", [seeded_noise(0), seeded_noise(7, 1, 2), secure_noise()])
def test_noise_is_standard_gaussian(noise: Noise) -> None:
    drawn = noise(40_000)
    # One wrong alarm in a thousand million of the draw that no seed decides: 6 standard errors.
    assert kstest(drawn, "norm").pvalue > 1e-9
    assert abs(np.corrcoef(drawn[:-1], drawn[1:])[0, 1]) < 6 / np.sqrt(len(drawn))


def test_seeds_decide_seeded_noise_and_nothing_decides_the_other() -> None:
    np.testing.assert_array_equal(seeded_noise(3, 1)(8), seeded_noise(3, 1)(8))
    assert not np.array_equal(seeded_noise(3, 1)(8), seeded_noise(3, 2)(8))
    assert not np.array_equal(secure_noise()(8), secure_noise()(8))
    noise = secure_noise()
    assert not np.array_equal(noise(8), noise(8))
