"""What noise costs: the figures that are known, and those of the accountant's library."""

from __future__ import annotations

import math
import sys

import dp_accounting
import pytest
from scipy.optimize import brentq
from scipy.stats import norm

from recast_core import RecastError
from recast_core.privacy.accountant import Accountant, Mechanism

DELTA = 1e-5
ACCOUNT = Accountant(DELTA)


def delta_of_gaussian(epsilon: float, noise: float) -> float:
    """Balle and Wang (ICML 2018), theorem 8, at sensitivity 1."""
    half, step = 0.5 / noise, epsilon * noise
    return float(norm.cdf(half - step) - math.exp(epsilon) * norm.cdf(-half - step))


def test_the_noise_of_one_gaussian_at_epsilon_1_and_delta_1e_5_is_the_known_one() -> None:
    assert ACCOUNT.noise_for(1.0, [], [(1.0, "all")]) == pytest.approx(3.730632, rel=2e-3)
    assert ACCOUNT.epsilon([Mechanism(3.730632)]) == pytest.approx(1.0, rel=1e-5)


def test_gaussians_add_up_as_their_precisions_do() -> None:
    mixed = [Mechanism(20.0)] * 4 + [Mechanism(30.0)] * 9
    alone = Mechanism((4 / 20**2 + 9 / 30**2) ** -0.5)
    assert ACCOUNT.epsilon(mixed) == pytest.approx(ACCOUNT.epsilon([alone]), rel=1e-9)
    counted = dp_accounting.pld.PLDAccountant()
    for one in mixed:
        counted.compose(dp_accounting.GaussianDpEvent(one.noise))
    assert ACCOUNT.epsilon(mixed) == pytest.approx(counted.get_epsilon(DELTA), rel=1e-3)


def test_poisson_sampling_costs_what_the_library_says() -> None:
    counted = dp_accounting.pld.PLDAccountant()
    event = dp_accounting.PoissonSampledDpEvent(0.1, dp_accounting.GaussianDpEvent(4.0))
    counted.compose(event, 10)
    counted.compose(dp_accounting.GaussianDpEvent(12.0))
    found = ACCOUNT.epsilon([Mechanism(4.0, 0.1, "poisson")] * 10 + [Mechanism(12.0)])
    assert found == pytest.approx(counted.get_epsilon(DELTA), rel=1e-4)


def test_one_draw_of_a_fixed_number_costs_what_the_formula_says() -> None:
    # Balle, Barthe and Gaboardi (NeurIPS 2018), theorem 9, for another client's place: twice C.
    rate, noise = 0.2, 3.0
    wanted = brentq(
        lambda e: rate * delta_of_gaussian(math.log1p(math.expm1(e) / rate), noise / 2) - DELTA,
        1e-3,
        5,
    )
    found = ACCOUNT.epsilon([Mechanism(noise, rate, "fixed")])
    assert wanted <= found <= wanted * 1.002


def test_a_fixed_number_is_never_cheaper_than_chance_and_never_dearer_than_none() -> None:
    for rate in (0.05, 0.3, 0.49, 0.6, 1.0):
        kinds = {
            kind: ACCOUNT.epsilon([Mechanism(6.0, rate, kind)] * 5)  # type: ignore[arg-type]
            for kind in ("poisson", "fixed", "all")
        }
        assert kinds["poisson"] <= kinds["fixed"] * 1.0001
        assert kinds["fixed"] <= kinds["all"] * 1.0001
    assert kinds["fixed"] == kinds["all"] == pytest.approx(kinds["poisson"])


@pytest.mark.parametrize(
    "shapes",
    [
        [(1.0, "all")] * 18,
        [(0.3, "poisson")] * 6,
        [(0.2, "fixed")] * 3 + [(1.0, "all")] * 3,
    ],
)
def test_the_noise_that_is_planned_spends_the_budget_and_no_more(shapes: list[object]) -> None:
    noise = ACCOUNT.noise_for(1.0, [], shapes)  # type: ignore[arg-type]
    cost = ACCOUNT.epsilon([Mechanism(noise, *shape) for shape in shapes])  # type: ignore[misc]
    assert 0.99 < cost <= 1.0


def test_what_is_spent_makes_the_rest_noisier_and_a_spent_budget_is_refused() -> None:
    fresh = ACCOUNT.noise_for(1.0, [], [(1.0, "all")] * 4)
    spent = [Mechanism(fresh)] * 2
    assert ACCOUNT.noise_for(1.0, spent, [(1.0, "all")] * 4) > fresh
    with pytest.raises(RecastError, match=r"budget is spent: epsilon (1|0.999.) of 1$"):
        ACCOUNT.noise_for(1.0, [Mechanism(fresh)] * 4, [(1.0, "all")])
    assert ACCOUNT.epsilon([Mechanism(0.0)]) == math.inf
    assert ACCOUNT.epsilon([]) == 0.0


def test_without_the_library_one_line_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "dp_accounting", None)
    with pytest.raises(RecastError, match=r"pip install 'recast-fl\[privacy\]'$"):
        Accountant(DELTA)
