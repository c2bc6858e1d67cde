"""How the rounds of a run go, apart from what they learn."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from recast_core.privacy.check import clip_length
from recast_core.setting_values import parse_quorum
from recast_core.settings import Settings
from recast_core.start import Start
from recast_core.wire.messages import Hyperparameters
from server.rounds.aggregation import aggregation, average, shares, whole
from server.rounds.contribution import Aggregate, Shares
from server.rounds.privacy import PrivacyPlan
from server.rounds.probe import Probe


@dataclass(frozen=True)
class RoundPlan:
    """What the server decides of every round.

    Attributes:
        rounds: for each task.
        hyper: what clients train with.
        parallel: how many tasks a round trains.
        clients_per_round: how many nodes train a task in a round, 0 for all.
        quorum: updates that close a round early: a count, or a share (float) of those asked.
        deadline: seconds that a round, an evaluation or a greeting may take.
        max_lag: how many times as long as the others a client may take; 0 for the deadline alone.
        patience: seconds to wait for clients where there are none.
        aggregate: makes a task's next vector.
        shares: how much of each contribution that lets count.
        max_weight: times their median that a client's examples may count; 0 for no limit.
        probe: what the server can tell of coefficients by itself.
        falls: the rate falls along half a cosine over a task's rounds.
        kept_falls: likewise, of tasks that keep an earlier one's head.
        kept_objective: what these lower.
        nearest: a task may start at an earlier one's coefficients.
        evaluate_every: rounds after which a task is also evaluated; 0 for none but its last.
        summary: the ledger sums up the rows of most clients.
        secret: decides who is drawn, where clients may not know; ``None`` for the run's seed.
        privacy: what the run may tell of any one client; ``None`` for no promise.
        secure: clients hide their updates, and only sums are told.
        clip: length that a hidden update may have, where there is no privacy; ``None`` for any.
    """

    rounds: int
    hyper: Hyperparameters
    parallel: int = 1
    clients_per_round: int = 0
    quorum: int | float = 1.0
    deadline: float = 3600.0
    max_lag: float = 0.0
    patience: float = 30.0
    aggregate: Aggregate = average
    shares: Shares = whole
    max_weight: float = 0.0
    probe: Probe | None = None
    falls: bool = False
    kept_falls: bool = False
    kept_objective: str = "cross-entropy"
    nearest: bool = False
    evaluate_every: int = 0
    summary: bool = False
    secret: int | None = None
    privacy: PrivacyPlan | None = None
    secure: bool = False
    clip: float | None = None

    def hidden(self, secret: int | None) -> RoundPlan:
        """The plan where clients may know neither who is drawn nor the noise."""
        if secret is None:
            return self
        privacy = None if self.privacy is None else replace(self.privacy, seed=None)
        return replace(self, secret=secret, privacy=privacy)

    @property
    def sampling_seed(self) -> int:
        """What decides who is drawn."""
        return self.hyper.seed if self.secret is None else self.secret

    @classmethod
    def of(cls, settings: Settings, patience: float, start: Start | None = None) -> RoundPlan:
        """The plan that the settings describe.

        Args:
            settings: of the run.
            patience: see the class.
            start: decides rate and width where the settings leave them open.

        Raises:
            RecastError: no such aggregation, or no accountant for a private run.
        """
        rate, numbers = (start.customary_rate, start.sent) if start else (None, 0)
        # What is hidden, or has a budget, is a mean: a rule compares single updates with others.
        private = settings.secure_aggregation or settings.dp_epsilon
        rule = settings.aggregation
        if private and rule == Settings.aggregation:
            rule = "mean"
        return cls(
            rounds=settings.rounds,
            hyper=settings.hyperparameters(rate, numbers),
            parallel=settings.parallel_tasks,
            clients_per_round=settings.clients_per_round,
            quorum=parse_quorum(settings.quorum),
            deadline=settings.deadline,
            max_lag=settings.max_lag,
            patience=patience,
            aggregate=aggregation(rule),
            shares=shares(rule),
            max_weight=settings.max_weight,
            falls=settings.falls and (settings.all_keep or settings.decay == "cosine"),
            kept_falls=settings.falls,
            kept_objective=settings.kept_objective,
            # In a private run which earlier task a client takes would be told without noise.
            nearest=settings.begin == "nearest" and settings.keeps and not settings.dp_epsilon,
            privacy=PrivacyPlan.of(settings),
            secure=settings.secure_aggregation,
            clip=clip_length(settings) if settings.secure_aggregation else None,
            evaluate_every=settings.evaluate_every,
            summary=settings.ledger == "summary",
        )

    def hyper_of(self, round_: int, *, keeps: bool = False) -> Hyperparameters:
        """What clients train with in a round, from 1; ``keeps`` where an earlier head is kept."""
        hyper = replace(self.hyper, objective=self.kept_objective) if keeps else self.hyper
        if not (self.kept_falls if keeps else self.falls):
            return hyper
        share = 0.5 * (1 + math.cos(math.pi * (round_ - 1) / self.rounds))
        return replace(hyper, learning_rate=hyper.learning_rate * share)
