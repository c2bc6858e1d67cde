"""``recast bank``: a shift bank of a deployed classifier.

Needs no more than PyTorch, so that it can be imported where neither Flower nor a terminal is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from client.data import load_dataset, parse_task
from client.data.arrays import Dataset, Images
from recast_core.backbones import Backbone, load_backbone
from recast_core.bank import TemplateBank
from recast_core.classes import synsets_in_place
from recast_core.errors import RecastError
from recast_core.mimicry import fingerprint
from recast_core.packed import BITS
from recast_core.recipe import Recipe
from recast_core.shifts.compositions import (
    PAIRS,
    Composition,
    allowed,
    composed,
    compositions,
    described,
)
from recast_core.shifts.table import DEFAULT_SEVERITY, Shift, shifts_of
from recast_core.sources.fine_tune import FineTuner
from recast_core.sources.forms import Everything
from recast_core.sources.held_out_shifts import Gain, Trial, held_out_gains, share_of_gain
from recast_core.sources.shift_bank import (
    Directions,
    divide,
    member_tensors,
    principal_directions,
    shift_bank,
)
from recast_core.sources.source_networks import (
    SourceFolder,
    SourceNetwork,
    Wanted,
    Watcher,
    fine_tune_sources,
)

MOST_SOURCES = 10_000
_UNSEEN = 3
_TRIAL_SEED = 1_000_003


@dataclass(frozen=True)
class BankPlan:
    """What a shift bank is made by.

    Attributes:
        shifts: names of shifts and families to make sources of; none is all.
        holdout: families that no source may see.
        sources: source networks.
        sections: of the network.
        directions: per section.
        rank: see ``pack_directions``.
        bits: likewise.
        epochs: passes of a source over the training images.
        batch: images a step.
        learning_rate: the highest of a source.
        seed: of everything.
    """

    shifts: tuple[str, ...] = ()
    holdout: tuple[str, ...] = ()
    sources: int = 48
    sections: int = 4
    directions: int = 12
    rank: int = 32
    bits: int = 4
    epochs: int = 6
    batch: int = 64
    learning_rate: float = 1e-3
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("sources", "sections", "directions", "rank", "epochs", "batch"):
            if getattr(self, name) < 1:
                raise RecastError(f"{name} is {getattr(self, name)}: give at least 1")
        if self.sources > MOST_SOURCES:
            raise RecastError(f"sources is {self.sources}: give at most {MOST_SOURCES}")
        if not 0 <= self.seed < 1 << 32:
            raise RecastError(f"seed is {self.seed}: give a whole number from 0 to {(1 << 32) - 1}")
        if self.bits not in BITS:  # said now, not when all sources are there
            raise RecastError(f"bits is {self.bits}: give {BITS[0]} to {BITS[-1]}")
        if not 0 < self.learning_rate < 1:
            raise RecastError(f"learning rate {self.learning_rate}: give one between 0 and 1")


class BankWatcher(Watcher, Protocol):
    """Who is told how the making of a bank goes."""

    def say(self, text: str) -> None:
        """Something worth a line."""


@dataclass(frozen=True, eq=False)
class MadeBank:
    """A shift bank, and what it was made of.

    Attributes:
        bank: what clients are sent.
        directions: before they were packed.
        sources: all that were tried, in order.
        spare: further sources that an earlier command had asked for; what is there of them stays.
        gains: on shifts that no source met, by what was held out ("" for unseen pairs).
    """

    bank: TemplateBank
    directions: Directions
    sources: Sequence[SourceNetwork]
    gains: dict[str, list[Gain]]
    spare: int = 0

    def report(self) -> dict[str, Any]:
        """What ``--json`` writes."""
        sections, count = self.directions.spread.shape
        return {
            "sources": len([s for s in self.sources if s.differences]),
            "diverged": [s.name for s in self.sources if not s.differences],
            "sections": sections,
            "directions": count,
            "coefficients": self.bank.sent,
            "bytes": len(self.bank.to_bytes()),
            "sha256": self.bank.sha256.hex(),
            "spread": self.directions.spread.tolist(),
            "holdout": {
                family or "unseen pairs": {
                    "share": share_of_gain(gains),
                    "shifts": [gain.as_dict() for gain in gains],
                }
                for family, gains in self.gains.items()
            },
        }


def make_bank(
    backbone: str,
    data: str,
    plan: BankPlan,
    watcher: BankWatcher,
    device: torch.device,
    folder: Path | None = None,
) -> MadeBank:
    """Fine-tune the sources, take the directions, pack them, and try them on what they never saw.

    Args:
        backbone: the deployed classifier.
        data: a task over all its classes; its training images make sources, its test images the
            trials.
        plan: how.
        watcher: is told of progress.
        device: where.
        folder: where finished sources are kept.

    Raises:
        RecastError: a classifier of other classes, shifts that are not there, too few sources left.
    """
    loaded = load_backbone(backbone)
    dataset = load_dataset(parse_task(data), loaded.preprocess.size)
    _check_classes(loaded, dataset, data)
    grey = dataset.x_train.ndim == 3
    choice = allowed(plan.shifts, plan.holdout, grey=grey)
    wanted = compositions(plan.sources, choice, plan.seed)
    names = member_tensors(loaded.model, loaded.head)
    sections = divide(names, plan.sections)
    network = fingerprint(loaded.model)
    kept = (
        None if folder is None else SourceFolder(folder, _settings(network, dataset, plan, wanted))
    )
    images, labels = _planes(dataset.x_train, device), torch.from_numpy(dataset.y_train)
    form = Everything(loaded.model, loaded.head, device)
    sources = fine_tune_sources(
        FineTuner(loaded.model, form, device),
        [_wanted(loaded, images, each, plan.seed, place) for place, each in enumerate(wanted)],
        labels,
        Recipe(plan.epochs, plan.batch, plan.learning_rate),
        names,
        watcher,
        kept,
    )
    good = [source.differences for source in sources if source.differences]
    directions = principal_directions(good, sections, _count(plan.directions, len(good), watcher))
    meta = {"sources": str(len(good)), "data": data, "holdout": " ".join(plan.holdout)}
    bank = shift_bank(
        loaded.model, directions, rank=plan.rank, bits=plan.bits, meta=meta, device=device
    )
    gains = _try(loaded, dataset, bank, plan, choice, device)
    return MadeBank(bank, directions, sources, gains, kept.spare if kept else 0)


def _check_classes(loaded: Backbone, dataset: Dataset, data: str) -> None:
    """The classifier must know the data's classes: their number, and their names where it has any.

    And there must be images to try the bank on.

    Raises:
        RecastError: it does not.
    """
    head = loaded.model.get_submodule(loaded.head)
    outputs = [m.out_features for m in head.modules() if isinstance(m, torch.nn.Linear)][-1]
    if outputs != len(dataset.classes):
        raise RecastError(
            f"{loaded.spec} tells {outputs} classes apart, {data} has {len(dataset.classes)}: a "
            "shift bank needs the classifier that is deployed for these data; fine-tune it first"
        )
    if len(dataset.y_test) < 2:  # half of them to adapt to, half to judge by
        raise RecastError(f"{data} has {len(dataset.y_test)} test images: give at least 2")
    known = loaded.classes in ((), dataset.classes)
    if not known and not synsets_in_place(dataset.classes, loaded.classes):
        pairs = zip(loaded.classes, dataset.classes, strict=True)
        mine, other = next(pair for pair in pairs if pair[0] != pair[1])
        raise RecastError(
            f"{loaded.spec} was deployed for other classes: one is {mine!r} there and {other!r} in "
            f"{data}; give the data that it was deployed for"
        )


def _settings(
    network: str, dataset: Dataset, plan: BankPlan, wanted: Sequence[Composition]
) -> dict[str, object]:
    """What finished sources follow from; packing and trials may change in between."""
    learned = replace(dataset, x_test=dataset.x_test[:0], y_test=dataset.y_test[:0])
    told = {key: getattr(plan, key) for key in ("epochs", "batch", "learning_rate", "seed")}
    return {
        "network": network,
        "data": learned.digest(),
        "sources": [described(each) for each in wanted],
        **told,
    }


def _planes(images: Images, device: torch.device) -> Tensor:
    """Stored images as uint8 ``[N, C, H, W]``."""
    planes = torch.from_numpy(images).to(device)
    return planes.unsqueeze(1) if planes.dim() == 3 else planes.permute(0, 3, 1, 2).contiguous()


def _prepared(loaded: Backbone, planes: Tensor) -> Tensor:
    return loaded.preprocess(planes.permute(0, 2, 3, 1))


def _wanted(loaded: Backbone, planes: Tensor, shifts: Composition, seed: int, place: int) -> Wanted:
    def images() -> Tensor:
        return _prepared(loaded, composed(planes, shifts, seed * 10_007 + place))

    return Wanted(described(shifts), images, seed)


def _count(directions: int, sources: int, watcher: BankWatcher) -> int:
    """How many directions there can be.

    Raises:
        RecastError: no source is left.
    """
    if not sources:
        raise RecastError("every source network diverged: lower --learning-rate")
    if sources < directions:
        watcher.say(
            f"{sources} source networks span {sources} directions at most: "
            f"{directions} were asked for, the bank has {sources}"
        )
    return min(directions, sources)


def _try(
    loaded: Backbone,
    dataset: Dataset,
    bank: TemplateBank,
    plan: BankPlan,
    choice: Sequence[Shift | str],
    device: torch.device,
) -> dict[str, list[Gain]]:
    """Gains on held-out families, or else on pairs of shifts that no source met."""
    order = np.random.default_rng(_TRIAL_SEED).permutation(len(dataset.y_test))
    planes = _planes(dataset.x_test[order], device)
    labels = torch.from_numpy(dataset.y_test[order])
    grey = planes.shape[1] == 1
    tried: dict[str, list[Composition]] = {
        family: [(Shift(name, DEFAULT_SEVERITY),) for name in shifts_of(family, grey=grey)]
        for family in plan.holdout
    }
    if not tried:
        pairs = compositions(len(choice) + _UNSEEN, choice, plan.seed + _TRIAL_SEED, PAIRS)
        tried = {"": list(pairs[-_UNSEEN:])}
    found = {}
    for family, shifts in tried.items():
        trials = [
            Trial(described(each), _wanted(loaded, planes, each, _TRIAL_SEED, i).images, labels)
            for i, each in enumerate(shifts)
        ]
        found[family] = held_out_gains(
            loaded.model, loaded.head, bank, trials, plan.learning_rate, device
        )
    return found
