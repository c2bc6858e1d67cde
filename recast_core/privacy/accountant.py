"""What noisy sums cost: epsilon at a delta, by privacy loss distributions (dp-accounting).

Two runs are neighbours where one client takes part in both, with what it has in one and with
nothing, a zero vector, in the other; with local noise, with any other data in the other.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache, reduce
from types import ModuleType
from typing import Any, Literal

import numpy as np

from recast_core.errors import RecastError

Sampling = Literal["all", "fixed", "poisson"]

_GAP = 1e-4
# With less than this share of a budget left, what can be bought of it is noise.
_LEFT = 0.01
_FINEST, _MOST_NOISE = 1e-3, 1e6


@dataclass(frozen=True)
class Mechanism:
    """One noisy sum.

    Attributes:
        noise: the standard deviation over the length that one client can move the sum by.
        rate: the share of clients whose contributions are in the sum.
        sampling: how they are drawn: ``all``; a ``fixed`` number without replacement; or each by
            itself (``poisson``). Only who draws in secret may say that they were drawn.
    """

    noise: float
    rate: float = 1.0
    sampling: Sampling = "all"

    @property
    def amplified(self) -> bool:
        """Whether the drawing counts.

        A fixed number counts as one with twice the sensitivity, since another client takes the
        place of one that is not drawn: towards half of all clients that is worth nothing.
        """
        return self.rate < (0.5 if self.sampling == "fixed" else 1.0) and self.sampling != "all"


class Accountant:
    """Adds up mechanisms; adaptively chosen ones too, as long as only released numbers choose."""

    def __init__(self, delta: float, *, discrete: bool = False) -> None:
        """Account at ``delta``.

        Args:
            delta: at which.
            discrete: noise is discrete Gaussian, and no drawing is counted.

        Raises:
            RecastError: dp-accounting is not installed.
        """
        library()
        self._delta, self._discrete = delta, discrete

    def epsilon(self, mechanisms: Iterable[Mechanism]) -> float:
        """What all of them cost together; infinite where one has no noise."""
        counted = Counter(mechanisms)
        if not counted:
            return 0.0
        if any(one.noise <= 0 for one in counted):
            return math.inf
        if self._discrete:
            return _concentrated(sum(n / one.noise**2 for one, n in counted.items()), self._delta)
        found = _epsilon(frozenset(counted.items()), self._delta)
        if all(one.sampling != "fixed" for one in counted):
            return found
        # Both bounds hold: of drawing a fixed number, and of not knowing that any were drawn.
        plain = Counter[Mechanism]()
        for one, count in counted.items():
            plain[Mechanism(one.noise) if one.sampling == "fixed" else one] += count
        return min(found, _epsilon(frozenset(plain.items()), self._delta))

    def noise_for(
        self, budget: float, spent: Iterable[Mechanism], planned: Iterable[tuple[float, Sampling]]
    ) -> float:
        """The least noise with which all that is planned stays within ``budget``.

        Args:
            budget: epsilon in all.
            spent: mechanisms that have been run.
            planned: rate and sampling of each that is to come.

        Raises:
            RecastError: no noise is enough: the budget is spent.
        """
        before, shapes = list(spent), Counter(planned)

        def cost(noise: float) -> float:
            to_come = [
                Mechanism(noise, rate, kind)
                for (rate, kind), count in shapes.items()
                for _ in range(count)
            ]
            return self.epsilon(before + to_come)

        if not shapes:
            return 0.0
        if self.epsilon(before) < budget * (1 - _LEFT):
            # Near what it will be: as much as without drawing, and less by what that saves.
            guess = max(4 * math.sqrt(sum(n * r**2 for (r, _), n in shapes.items())) / budget, 1.0)
            found = _least(lambda noise: cost(noise) - budget, guess)
            if found is not None:
                return found
        raise RecastError(
            f"the privacy budget is spent: epsilon {self.epsilon(before):.4g} of {budget:g}"
        )


def _least(excess: Callable[[float], float], guess: float) -> float | None:
    """The least noise, to a thousandth, whose ``excess`` over the budget is none."""
    enough = little = guess
    while excess(enough) > 0:
        little, enough = enough, enough * 2
        if enough > _MOST_NOISE:
            return None
    while little == enough or (excess(little) <= 0 and little > _FINEST):
        enough, little = little, little / 2
    while enough / little > 1 + _FINEST:
        # The cost falls about as the noise rises: regula falsi in logarithms, kept off the ends.
        high, low = excess(little), excess(enough)
        share = min(max(high / (high - low), 0.05), 0.95) if math.isfinite(high) else 0.5
        middle = little * (enough / little) ** share
        enough, little = (enough, middle) if excess(middle) > 0 else (middle, little)
    return enough


def library() -> ModuleType:
    """The accountant's library.

    Raises:
        RecastError: it is not installed.
    """
    try:
        import dp_accounting
    except ImportError as error:
        raise RecastError(
            "differential privacy needs dp-accounting: pip install 'recast-fl[privacy]'"
        ) from error
    found: ModuleType = dp_accounting
    return found


@lru_cache(maxsize=4096)
def _epsilon(counted: frozenset[tuple[Mechanism, int]], delta: float) -> float:
    """Epsilon of mechanisms, each so many times."""
    # Gaussians that nothing amplifies are one Gaussian, exactly.
    precision = sum(count / one.noise**2 for one, count in counted if not one.amplified)
    sampled = [(one, count) for one, count in sorted(counted, key=repr) if one.amplified]
    if not sampled:
        return float(library().get_epsilon_gaussian(precision**-0.5, delta))
    distributions = library().pld.privacy_loss_distribution
    parts = [_sampled(one).self_compose(count) for one, count in sampled]
    if precision:
        parts.append(
            distributions.from_gaussian_mechanism(
                precision**-0.5, value_discretization_interval=_GAP
            )
        )
    total = reduce(lambda one, other: one.compose(other), parts)
    return float(total.get_epsilon_for_delta(delta))


@lru_cache(maxsize=4096)
def _concentrated(precision: float, delta: float) -> float:
    """Epsilon of discrete Gaussians, by Renyi divergences.

    At every order these are no larger than a continuous one's (Canonne, Kamath and Steinke, NeurIPS
    2020, theorem 14), of which alone the whole curve is known.
    """
    from dp_accounting import rdp

    orders = 1 + np.geomspace(0.02, 1e5, 400)
    return float(rdp.compute_epsilon(orders, orders * precision / 2, delta)[0])


@lru_cache(maxsize=256)
def _sampled(one: Mechanism) -> Any:
    """The privacy loss distribution of one amplified mechanism."""
    distributions = library().pld.privacy_loss_distribution
    if one.sampling == "poisson":
        return distributions.from_gaussian_mechanism(
            one.noise, value_discretization_interval=_GAP, sampling_prob=one.rate
        )
    return _without_replacement(one.noise / 2, one.rate)


def _without_replacement(noise: float, rate: float) -> Any:
    """Of a fixed number without replacement (Zhu, Dong and Wang, AISTATS 2022, theorem 11).

    The curve of the sampled Gaussian in the one direction for losses above zero, in the other
    below: it holds for either direction.
    """
    from dp_accounting.pld import pld_pmf, privacy_loss_mechanism

    kinds = privacy_loss_mechanism.AdjacencyType
    above, below = (
        privacy_loss_mechanism.GaussianPrivacyLoss(noise, sampling_prob=rate, adjacency_type=kind)
        for kind in (kinds.REMOVE, kinds.ADD)
    )
    lower = math.floor(below.connect_dots_bounds().epsilon_lower / _GAP)
    upper = math.ceil(above.connect_dots_bounds().epsilon_upper / _GAP)
    losses = np.arange(lower, upper + 1)
    deltas = np.concatenate(
        [
            below.get_delta_for_epsilon(losses[losses < 0] * _GAP),
            above.get_delta_for_epsilon(losses[losses >= 0] * _GAP),
        ]
    )
    mass = pld_pmf.create_pmf_pessimistic_connect_dots_fixed_gap(_GAP, lower, upper, deltas)
    return library().pld.privacy_loss_distribution.PrivacyLossDistribution(mass)
