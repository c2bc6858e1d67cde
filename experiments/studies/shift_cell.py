"""One shift of the study of shifts: learners, tuned rates, rows."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from torch import Tensor

from experiments.studies.shift_book import Row
from experiments.studies.shift_contenders import (
    BY_NAME,
    COEFFICIENTS,
    DEPLOYED,
    FULL,
    LOCAL_HEAD,
    NONE,
    REGIMES,
    Contender,
    Key,
    regime_of,
)
from experiments.studies.shift_fleet import Domain, Share, deal
from experiments.studies.shift_judge import (
    accuracy,
    answers,
    local_heads,
    with_own_heads,
    with_statistics,
)
from experiments.studies.shift_learners import Learner
from experiments.studies.shift_rounds import Outcome, Terms, federate, with_rate
from experiments.studies.shift_site import Site
from recast_core.bank import TemplateBank
from recast_core.shifts.table import Shift

Banks = Mapping[str, Callable[[], TemplateBank]]
_VALIDATION_SEED = 1_009
_FEW_PASSES = 3


@dataclass(frozen=True)
class Trial:
    """What does not change over the rows of a site.

    Attributes:
        clients: how many.
        alpha: of the Dirichlet draw.
        seeds: runs of each row.
        terms: of every federation, apart from its rate.
        tuning_rounds: of a federation that tries a rate.
        further: rates that are tried at most beyond an end of a grid where the best lies there.
        skip: names of contenders that are left out.
        budgets: of labels, that are tried.
        folded: train banks in the folded engine, or one client after another.
    """

    clients: int = 10
    alpha: float = 0.3
    seeds: int = 3
    terms: Terms = field(default_factory=Terms)
    tuning_rounds: int = 5
    skip: tuple[str, ...] = ()
    budgets: tuple[int, ...] = (-1, 0, 64, 256, 1024)
    folded: bool = True
    further: int = 0


class Cell:
    """One shift on one site: the learners and who has which images."""

    def __init__(self, site: Site, shift: Shift, banks: Banks, trial: Trial) -> None:
        self.site, self.shift, self.trial = site, shift, trial
        self.domain: Domain = site.domain(shift)
        self._banks = banks
        self._learners: dict[str, Learner] = {}
        self._dealt: dict[tuple[object, ...], list[Share]] = {}

    def learner(self, contender: Contender) -> Learner:
        """What trains for it; kept for the cell."""
        name = contender.bank or contender.method.split(":")[0] + contender.method[5:6]
        if name not in self._learners:
            if contender.bank:
                bank = self._banks[contender.bank]()
                made: Learner = (
                    self.site.folded(bank)
                    if self.trial.folded
                    else self.site.captured_bank(bank, self.trial.terms.batch)
                )
            else:
                spec = contender.method.format(self.site.lora_target)
                made = self.site.captured(spec, self.trial.terms.batch)
            made.hold(self.domain)
            self._learners[name] = made
        return self._learners[name]

    def shares(
        self, learner: Learner, contender: Contender, labels: int, seed: int, **how: bool
    ) -> list[Share]:
        """Who has which images, and whose BatchNorms go by its own."""
        clients = 1 if contender.central else self.trial.clients
        key = clients, labels, seed, *how
        if key not in self._dealt:
            dealt = deal(self.domain, clients, self.trial.alpha, seed, labels, **how)
            self._dealt[key] = with_own_heads(learner, with_statistics(learner, dealt))
        return self._dealt[key]

    def terms(self, contender: Contender, labels: int, rates: dict[str, float]) -> Terms:
        """How the federation goes on."""
        terms = replace(
            self.trial.terms,
            rate=rates.get("client", 0.1),
            bits=contender.bits,
            label_free=labels == NONE,
            alone=contender.alone,
        )
        if regime_of(labels) == "few":
            terms = replace(terms, epochs=terms.epochs * _FEW_PASSES)
        if contender.server:
            terms = replace(terms, server_rate=rates["server"])
        if contender.alone and contender.bank and self.trial.folded:
            # Folded clients start from one vector: all passes at once, at one rate.
            terms = replace(terms, rounds=1, epochs=terms.rounds * terms.epochs)
        return terms

    def run(self, key: Key, rates: dict[str, float]) -> Row:
        """One row."""
        contender, began = BY_NAME[key.contender], time.monotonic()
        # Who trains nothing needs the deployed network alone, which every learner starts as.
        learner = self.learner(BY_NAME[COEFFICIENTS] if contender.free else contender)
        shares = self.shares(learner, contender, key.labels, key.seed)
        start = learner.start.initial_vector
        outcome = Outcome([start] * len(shares), 0, 0, 0)
        if not contender.free:
            terms = self.terms(contender, key.labels, rates)
            outcome = federate(learner, shares, terms, key.seed)
        return {
            **self._judged(key, learner, shares, outcome.vectors),
            "numbers": 0 if contender.free or contender.alone else learner.start.sent,
            "update_bytes": 0 if contender.central else outcome.update_bytes,
            "up": 0 if contender.central else outcome.up,
            "down": 0 if contender.central else outcome.down,
            "bits": contender.bits,
            "local": sum(share.local for share in shares),
            "engine": "folded" if contender.bank and self.trial.folded else "captured",
            "rates": rates,
            "seconds": round(time.monotonic() - began, 2),
        }

    def _judged(
        self, key: Key, learner: Learner, shares: Sequence[Share], vectors: Sequence[Tensor]
    ) -> Row:
        """``accuracy`` of answers as the product's, and of the classifier alone: ``plain``."""
        if key.contender == DEPLOYED:
            return {"accuracy": round(accuracy(learner, shares, vectors, frozen=True), 5)}
        if key.contender == LOCAL_HEAD:
            return {"accuracy": round(local_heads(learner, shares), 5)}
        if BY_NAME[key.contender].central:
            # Of the same clients as the others, each with its own label mix.
            fleet = BY_NAME[FULL]
            shares = self.shares(learner, fleet, key.labels, key.seed)
            vectors = [vectors[0]] * len(shares)
        found = answers(learner, shares, vectors)
        told = {"accuracy": found.chosen, "mixed": found.mixed, "plain": found.plain}
        return {name: round(value, 5) for name, value in told.items()}

    def tuned(self, contender: Contender, regime: str, rates: dict[str, float]) -> Row:
        """The rate of the grid, or beyond an end of it, that does best on validation images."""
        labels, began = REGIMES[regime], time.monotonic()
        learner = self.learner(contender)
        shares = self.shares(learner, contender, labels, _VALIDATION_SEED, validate=True)

        def tried(rate: float) -> float:
            terms = self.terms(contender, labels, {**rates, "server": rate})
            terms = replace(with_rate(terms, rate), rounds=self.trial.tuning_rounds)
            vectors = federate(learner, shares, terms, _VALIDATION_SEED).vectors
            return round(answers(learner, shares, vectors).chosen, 5)

        best, found = best_rate(contender.rates(regime), tried, self.trial.further)
        seconds = round(time.monotonic() - began, 2)
        validation = {str(rate): right for rate, right in found.items()}
        return {"rate": best, "validation": validation, "seconds": seconds}


def best_rate(
    grid: Sequence[float], tried: Callable[[float], float], further: int
) -> tuple[float, dict[float, float]]:
    """The rate with the highest accuracy, the lower of two that are even, and what each had.

    Args:
        grid: rates to try, rising by about one factor.
        tried: the accuracy at a rate.
        further: rates to try at most beyond the end at which the best lies.
    """
    found = {rate: tried(rate) for rate in grid}
    for _ in range(further):
        rates = sorted(found)
        best = max(rates, key=found.__getitem__)
        if best not in (rates[0], rates[-1]):
            break
        factor = grid[1] / grid[0]
        beyond = best / factor if best == rates[0] else best * factor
        rate = float(f"{beyond:.3g}")
        found[rate] = tried(rate)
    return max(sorted(found), key=found.__getitem__), found
