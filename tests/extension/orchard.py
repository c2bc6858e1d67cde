"""A plug-in, as another package would bring it: one of everything that can be registered.

Each says that it took part with a line in the file that ``ORCHARD_LOG`` names.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from recast_core.errors import RecastError
from recast_core.heads import Numbers, Statistics, TravellingHead, register_head
from recast_core.heads.base import class_sums, frozen_linear
from recast_core.methods import Method, MethodModel, register_method
from recast_core.methods.edits import Edits, taken_apart
from recast_core.methods.parts import ParameterPart
from recast_core.sources import Source, register_source
from recast_core.wire.codec import Encoded, Vector
from recast_core.wire.transforms import Occasion, Rest, Transform, register_transform
from server.rounds.aggregation import Contribution, register_aggregation


def note(what: str) -> None:
    if path := os.environ.get("ORCHARD_LOG"):
        with Path(path).open("a") as log:
            log.write(f"{what} {os.getpid()}\n")


class Themselves(Source):
    """Each layer of a group is a template."""

    def __call__(
        self, weights: Tensor, templates: int | None, random: np.random.Philox
    ) -> tuple[Tensor, Tensor]:
        note("source")
        return weights.clone(), torch.eye(len(weights))


@dataclass(frozen=True)
class Biases(Method):
    """Train the biases of BatchNorm alone."""

    name: ClassVar[str] = "biases"
    learning_rate: ClassVar[float] = 1e-2

    def prepare(self, model: nn.Module) -> MethodModel:
        note("method")
        net = taken_apart(model)
        edits, found = Edits(net.backbone), {}
        for name, module in net.backbone.named_modules():
            if isinstance(module, nn.BatchNorm2d):
                edits.train(module.bias)
                found[f"{name}.bias"] = module.bias
        return MethodModel(self.name, net, edits, [ParameterPart(found)])


@dataclass(frozen=True)
class Centres(TravellingHead):
    """The nearest class mean, from the clients' means in full precision."""

    name: ClassVar[str] = "centres"
    code: ClassVar[int] = 200
    rows: ClassVar[str] = "centres"

    def fit(self, features: Tensor, labels: Tensor, classes: int) -> nn.Linear:
        return self.merge([self.statistics(features, labels, classes)], classes)

    def statistics(self, features: Tensor, labels: Tensor, classes: int) -> Statistics:
        note("head statistics")
        sums, counts = class_sums(features.cpu(), labels.cpu(), classes)
        present = counts.nonzero().squeeze(1)
        return {
            "centres": (sums[present] / counts[present].unsqueeze(1)).float(),
            "counts": counts[present].to(torch.int32),
            "classes": present.to(torch.int16),
        }

    def merge(self, statistics: Sequence[Statistics], classes: int) -> nn.Linear:
        note("head merge")
        width = self.width(statistics[0])
        sums, counts = torch.zeros(classes, width), torch.zeros(classes)
        for one in statistics:
            ids, weight = one["classes"].long(), one["counts"].float()
            sums.index_add_(0, ids, one["centres"] * weight.unsqueeze(1))
            counts.index_add_(0, ids, weight)
        centres = sums / counts.clamp_min(1).unsqueeze(1)
        return frozen_linear(centres, -centres.square().sum(1) / 2 - 1e4 * (counts == 0))

    def layout(self, width: int, present: int) -> Sequence[Numbers]:
        return (Numbers("centres", (present, width)),)


def median(start: Vector, contributions: Sequence[Contribution]) -> Vector:
    """The middle of what came for each coefficient."""
    note("aggregation")
    if not contributions:
        return start.copy()
    return np.asarray(start + np.median([c.offsets for c in contributions], axis=0), np.float32)


def make_times(argument: str) -> Transform:
    try:
        factor = np.float32(argument)
    except ValueError as error:
        raise RecastError(f"cannot multiply by {argument!r}: give a number") from error

    def times(offsets: Vector, occasion: Occasion, rest: Rest) -> Encoded:
        note("transform")
        return rest(offsets * factor)

    return times


register_source("themselves", Themselves)
register_method("biases", Biases)
register_head(Centres)
register_aggregation("own-median", median)
register_transform("times", make_times)
