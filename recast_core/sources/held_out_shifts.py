"""What a shift bank is worth on shifts that it was not made of."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

import torch
from torch import Tensor, nn

from recast_core.bank import TemplateBank
from recast_core.recipe import Recipe
from recast_core.sources.fine_tune import FineTuner
from recast_core.sources.forms import Along, Everything

# Full fine-tuning has the sources' rate; coefficients are in spreads, and any rate near this does.
_COEFFICIENT_RATE = 0.1
_STEPS = 150
_LITTLE_LOSS, _LITTLE_FALL = 0.2, 0.1


@dataclass(frozen=True)
class Trial:
    """Images under a shift, none of which any network has seen.

    Attributes:
        name: of the shift.
        images: makes them all: float ``[N, 3, H, W]``, as the network takes them.
        labels: int64 ``[N]``.
        learn: how many, from the first on, are adapted to; the others judge. Half where ``None``.
    """

    name: str
    images: Callable[[], Tensor]
    labels: Tensor
    learn: int | None = None


@dataclass(frozen=True)
class Gain:
    """Accuracies on one shift, on images that nothing was fitted to.

    Attributes:
        shift: its name.
        deployed: of the network as it is.
        statistics: with BatchNorm statistics of the shifted images; the same without BatchNorm.
        coefficients: of the bank, its numbers fitted by the labels of as many other images.
        full: of everything fine-tuned on the same.
        loss: the mean at the start of fitting the coefficients.
        fall: the part of it that was gone at the end.
    """

    shift: str
    deployed: float
    statistics: float
    coefficients: float
    full: float
    loss: float = 0.0
    fall: float = 0.0

    @property
    def free(self) -> float:
        """The best that costs no byte."""
        return max(self.deployed, self.statistics)

    def as_dict(self) -> dict[str, object]:
        """Plain JSON values."""
        return asdict(self)


def share_of_gain(gains: Sequence[Gain]) -> float | None:
    """The coefficients' part of what full fine-tuning gains over the best free baseline.

    Of the means over shifts; ``None`` where full fine-tuning gains nothing.
    """
    full = sum(gain.full - gain.free for gain in gains)
    return sum(gain.coefficients - gain.free for gain in gains) / full if full > 0 else None


def hardly_falls(gains: Sequence[Gain]) -> float | None:
    """The part of the loss that goes along a bank's directions, where that is next to nothing.

    ``None`` where enough goes, or where there is hardly a loss to lower.
    """
    worth = [gain.fall for gain in gains if not gain.loss <= _LITTLE_LOSS]
    fall = sum(worth) / len(worth) if worth else 1.0
    return None if fall >= _LITTLE_FALL else fall


def held_out_gains(
    model: nn.Module,
    head: str,
    bank: TemplateBank,
    trials: Sequence[Trial],
    rate: float,
    device: torch.device,
) -> list[Gain]:
    """Adapt to some of each trial's images, judge on the others.

    Args:
        model: the deployed network; not changed.
        head: dotted name of its classifier, which stays.
        bank: a shift bank of it.
        trials: what to adapt to; all of one number of images to learn from.
        rate: of full fine-tuning.
        device: where.
    """
    section_of = {group.name: group.rows[0] for group in bank.groups}
    stacks = {group.name: group.templates for group in bank.groups}
    along = FineTuner(model, Along(model, stacks, section_of, device), device)
    full = FineTuner(model, Everything(model, head, device), device)
    gains = []
    for trial in trials:
        images, labels = trial.images(), trial.labels.to(device)
        count = len(labels) // 2 if trial.learn is None else trial.learn
        learn, judge = (images[:count], labels[:count]), (images[count:], labels[count:])
        full.restart()
        deployed = full.accuracy(*judge)
        full.statistics(learn[0])
        statistics = full.accuracy(*judge)
        found, losses = [], []
        for tuner, top in ((along, _COEFFICIENT_RATE), (full, rate)):
            batch = min(64, count)
            epochs = max(10, -(-_STEPS * batch // count))
            losses.append(tuner.run(*learn, Recipe(epochs, batch, top)))
            tuner.statistics(learn[0])
            found.append(tuner.accuracy(*judge))
        first, last = losses[0].first, losses[0].last
        fall = (first - last) / first if first > 0 else 0.0
        coefficients, everything = found
        gains.append(Gain(trial.name, deployed, statistics, coefficients, everything, first, fall))
    return gains
