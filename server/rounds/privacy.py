"""The privacy of a run's clients: what a round may use, its noisy mean, and what it has cost.

The budget is one for the whole run, since the same people may be behind a client in every task.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

import numpy as np

from recast_core.errors import RecastError
from recast_core.privacy.accountant import Accountant, Mechanism, Sampling
from recast_core.privacy.check import clip_length
from recast_core.privacy.clipping import Double, bounded, length
from recast_core.privacy.noise import Noise, secure_noise, seeded_noise
from recast_core.settings import Settings
from recast_core.wire.codec import Vector
from recast_core.wire.gaussian import gaussian
from server.record.rows import Privacy as Kind
from server.record.rows import Spending
from server.rounds.aggregation import Contribution

# Adaptive clipping (Andrew et al., 2021): towards this share of updates within the clip, by at most
# so much in a round. Few rounds have to do.
_WITHIN, _STEP = 0.5, 1.0
# The noise of the count of those within, as a share of the clients; more where the count would
# take more than a tenth of the round's budget.
_COUNT_NOISE, _COUNT_SHARE = 1 / 20, 0.1
# The share of a budget for clients' noise in sums that is left for a last round to be asked again,
# each time half of it.
_KEPT = 0.05
# Deviations by which the length of noise is never above its root mean square.
_SURE = 6.0
# A plan that would use less than this share of the budget is made anew.
_USED = 0.97

Shape = tuple[float, Sampling]


def kind_of(dp: str) -> Kind:
    """Who adds the noise, by the setting ``dp``."""
    kinds: dict[str, Kind] = {"local": "local", "distributed": "distributed"}
    return kinds.get(dp, "central")


@dataclass(frozen=True)
class PrivacyPlan:
    """What the settings promise.

    Attributes:
        kind: who adds the noise.
        epsilon: of the whole run.
        delta: at which.
        clip: length of an update; ``None`` for one that follows the clients.
        poisson: clients are drawn each by itself.
        seed: of the noise, in an experiment; ``None`` for noise that nobody can repeat.
        hidden: updates are hidden in sums, whose clients know that each other were drawn.
    """

    kind: Kind
    epsilon: float
    delta: float
    clip: float | None
    poisson: bool
    seed: int | None
    hidden: bool = False

    @classmethod
    def of(cls, settings: Settings) -> PrivacyPlan | None:
        """The plan of the settings, ``None`` where they promise nothing.

        Raises:
            RecastError: the accountant's library is not installed.
        """
        if not settings.dp_epsilon:
            return None
        Accountant(settings.dp_delta)
        return cls(
            kind=kind_of(settings.dp),
            epsilon=settings.dp_epsilon,
            delta=settings.dp_delta,
            clip=clip_length(settings),
            poisson=settings.dp_sampling == "poisson",
            seed=settings.seed,
            hidden=settings.secure_aggregation,
        )


@dataclass(frozen=True)
class Turn:
    """What a round of a task may use.

    Attributes:
        noise: over what one client can move the sum by.
        clip: length of an update.
        clients: that are drawn, or as many on average: what a sum without noise is divided by.
        mechanism: for the account.
    """

    noise: float
    clip: float
    clients: int
    mechanism: Mechanism


@dataclass(frozen=True, eq=False)
class Clipped:
    """A sum of clipped offsets.

    Attributes:
        total: float64 ``[D]``, or a 0 where there are none.
        within: how many were no longer than the clip before.
        clients: how many there are.
    """

    total: Double
    within: float
    clients: int


class Privacy:
    """Keeps the budget of a run; it says nothing that has not been paid for."""

    def __init__(
        self, plan: PrivacyPlan, spent: Sequence[Spending], unit: Callable[[int], float]
    ) -> None:
        """Go on from what is ``spent``.

        Args:
            plan: of the run.
            spent: as the registry has it.
            unit: the length that an update may be expected to have in a round, from what is public.
        """
        self._plan, self._unit = plan, unit
        self._accountant = Accountant(plan.delta, discrete=plan.kind == "distributed")
        self._spent = [(row.task, _mechanism(row)) for row in spent]
        self._paid = Counter((row.task, row.round) for row in spent)
        self._noise = spent[-1].noise if spent else None
        self._threshold = spent[-1].threshold if spent else 1.0
        self._turns: dict[int, Turn] = {}
        # What this round has cost and the registry does not have yet.
        self._due: list[tuple[int, Mechanism]] = []

    @property
    def kind(self) -> Kind:
        """Who adds the noise."""
        return self._plan.kind

    @property
    def counts_within(self) -> bool:
        """Whether the clip follows a count of the updates that are no longer."""
        return self._plan.clip is None and self.kind == "central"

    def shape(self, able: int, drawn: int) -> Shape:
        """Rate and sampling of a round that asks ``drawn`` of ``able`` clients; 0 for all."""
        if self.kind != "central" or self._plan.hidden or not drawn or drawn >= able:
            return 1.0, "all"
        return drawn / able, "poisson" if self._plan.poisson else "fixed"

    def begin(self, task: int, round_: int, clients: int, shapes: Sequence[Shape]) -> Turn:
        """Take what a round needs out of the budget's plan.

        Args:
            task: its number.
            round_: from 1.
            clients: that are drawn, or as many on average.
            shapes: of this round and of all that are planned after it, of every task.

        Raises:
            RecastError: the budget does not allow it.
        """
        rate, sampling = shapes[0]
        noise = self._noise_for(shapes, self._paid[task, round_])
        clip = self._plan.clip or self._threshold * self._unit(round_)
        made = Turn(noise, clip, clients, Mechanism(noise, rate, sampling))
        self._turns[task], self._noise = made, noise
        return made

    def _noise_for(self, shapes: Sequence[Shape], paid: int) -> float:
        """As in the round before where that is still right, so that a resumed run does the same.

        A round that was ``paid`` for already, in vain, may use of what is kept where it must.
        """
        spent, budget = [mechanism for _, mechanism in self._spent], self._plan.epsilon
        kept = _KEPT if self.kind == "distributed" else 0.0
        within = budget * (1 - kept)
        if self._noise is not None:
            planned = [Mechanism(self._noise, rate, sampling) for rate, sampling in shapes]
            if _USED * within <= self._accountant.epsilon(spent + planned) <= within:
                return self._noise
        for times in range(paid + 1 if kept else 1):
            with suppress(RecastError):
                return self._accountant.noise_for(budget * (1 - kept / 2**times), spent, shapes)
        raise RecastError(
            f"the privacy budget is spent: epsilon {self._accountant.epsilon(spent):.4g} of "
            f"{budget:g}" + (", whose rest is kept for rounds that are asked again" if kept else "")
        )

    def turn(self, task: int) -> Turn:
        """What the round of a task that has begun may use."""
        return self._turns[task]

    def transform(self, task: int) -> str:
        """The noise of a client, where it adds its own.

        Its neighbours have any other data, so that its update can move by twice its length.
        """
        turn = self._turns[task]
        return gaussian(turn.clip, 2 * turn.clip * turn.noise)

    def longest(self, task: int, numbers: int) -> float:
        """The length that no clipped update of so many ``numbers`` has with a client's own noise.

        Of honest ones not one in millions is half as long; rounding to few bits has the rest.
        """
        turn = self._turns[task]
        return 2 * turn.clip * (1 + 2 * turn.noise * (math.sqrt(numbers) + _SURE))

    def clipped(self, task: int, contributions: Sequence[Contribution]) -> Clipped:
        """The sum of offsets ``[D]`` that are clipped here.

        All count alike, whatever their examples.
        """
        clip, total = self._turns[task].clip, np.zeros(())
        for one in sorted(contributions, key=lambda one: one.offsets.tobytes()):
            total = total + bounded(one.offsets, clip)
        within = sum(length(one.offsets) <= clip for one in contributions)
        return Clipped(total, within, len(contributions))

    def mean(self, task: int, round_: int, start: Vector, told: Clipped) -> tuple[Vector, Spending]:
        """``start [D]`` moved by the noisy mean of what is clipped, and what that costs.

        Who was drawn and has not answered counts as nothing, so that the divisor says nothing of
        anybody.
        """
        turn, noise = self._turns[task], self._source(task, round_)
        spread, within = turn.noise, None
        if self.counts_within:
            count = max(_COUNT_NOISE * turn.clients, turn.noise / (2 * math.sqrt(_COUNT_SHARE)))
            spread = (turn.noise**-2 - (2 * count) ** -2) ** -0.5
            inside = told.within - told.clients / 2
            within = 0.5 + (inside + count * float(noise(1)[0])) / turn.clients
        total = told.total + spread * turn.clip * noise(len(start))
        moved = np.asarray(start + total / turn.clients, np.float32)
        return moved, self._entry(task, round_, within)

    def own(self, task: int, round_: int) -> Spending:
        """What a round costs whose clients add the noise: before they are asked."""
        return self._entry(task, round_, None)

    def record(self, spendings: Sequence[Spending]) -> None:
        """These are in the registry."""
        self._due = []
        for row in spendings:
            self._spent.append((row.task, _mechanism(row)))
            self._paid[row.task, row.round] += 1
            self._threshold = row.threshold

    def _entry(self, task: int, round_: int, within: float | None) -> Spending:
        turn, threshold = self._turns[task], self._threshold
        if within is not None:
            threshold *= math.exp(-_STEP * (min(max(within, 0.0), 1.0) - _WITHIN))
        self._due.append((task, turn.mechanism))
        every = [*self._spent, *self._due]
        return Spending(
            task=task,
            round=round_,
            kind=self._plan.kind,
            noise=turn.noise,
            rate=turn.mechanism.rate,
            sampling=turn.mechanism.sampling,
            clip=turn.clip,
            threshold=threshold,
            within=within,
            task_epsilon=self._accountant.epsilon(one for number, one in every if number == task),
            epsilon=self._accountant.epsilon(one for _, one in every),
            delta=self._plan.delta,
            seeded=self._plan.seed is not None,
        )

    def _source(self, task: int, round_: int) -> Noise:
        seed = self._plan.seed
        return secure_noise() if seed is None else seeded_noise(seed, task, round_)


def _mechanism(row: Spending) -> Mechanism:
    return Mechanism(row.noise, row.rate, row.sampling)
