"""What a kind of head sends, and how a head comes of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol

import torch
from torch import Tensor, nn

from recast_core.errors import RecastError

Statistics = Mapping[str, Tensor]

# Scores of a ridge or nearest-mean head are of order one; logits are a few units.
UNIT_SCORES = 8.0
# The score of a class of which nobody has an example: never chosen, and still finite.
ABSENT = -1e4


@dataclass(frozen=True)
class Numbers:
    """One of the arrays that statistics end with on the wire, row after row.

    Attributes:
        name: in the statistics.
        shape: its shape there.
        whole: integers of 8 bits; float32 otherwise.
        squares: sums of squares, which grow with the examples and with the square of a feature.
    """

    name: str
    shape: tuple[int, ...]
    whole: bool = False
    squares: bool = False


class HeadKind(Protocol):
    """A way to learn a task's linear head from the clients' features.

    Labels are global class ids everywhere, so clients may hold different classes. A kind is a
    ``StayingHead`` or a ``TravellingHead``, which say what is the same for all of each.
    """

    @property
    def name(self) -> str:
        """As the command line calls it."""

    @property
    def code(self) -> int:
        """As messages call it: 0 to 255; those of other packages begin at 128."""

    @property
    def kept(self) -> bool:
        """Whether it is the deployed classifier, which nobody fits."""

    @property
    def travels(self) -> bool:
        """Whether the server makes the head, of what clients tell, and sends it to them."""

    @property
    def logit_scale(self) -> float:
        """What its scores are to be multiplied by to be logits, for a cross-entropy through it."""

    def fit(self, features: Tensor, labels: Tensor, classes: int) -> nn.Linear:
        """A head from one client's data alone.

        Args:
            features: float32 ``[N, d]``, N >= 1.
            labels: int64 ``[N]`` in ``[0, classes)``.
            classes: C.

        Returns:
            A frozen ``Linear(d, C)``; classes without examples are never chosen.
        """

    def statistics(self, features: Tensor, labels: Tensor, classes: int) -> Statistics:
        """What a client sends: tensors on the CPU, none for a head that stays local."""

    def merge(self, statistics: Sequence[Statistics], classes: int) -> nn.Linear | None:
        """The head from what the clients sent; ``None`` for a head that stays local.

        Raises:
            RecastError: nothing was sent, or statistics that do not fit together.
        """

    def layout(self, width: int, present: int) -> Sequence[Numbers]:
        """What follows the ids and counts of the classes in a client's bytes.

        Args:
            width: d, of the features.
            present: P, the number of classes that the client has.
        """

    def width(self, statistics: Statistics) -> int:
        """d, of the features that statistics are of."""

    def exact(self, statistics: Statistics) -> Statistics:
        """The same statistics in numbers that can be compared row by row, fit for ``merge``."""

    def check(self, statistics: Statistics) -> None:
        """Refuse finite numbers of the right lengths that no client can have found.

        Raises:
            RefusedError: such statistics.
        """


class StayingHead:
    """What all heads have in common that never leave their client."""

    travels: ClassVar[bool] = False
    kept: ClassVar[bool] = False
    logit_scale: ClassVar[float] = 1.0

    def statistics(self, features: Tensor, labels: Tensor, classes: int) -> Statistics:
        """Nothing."""
        return {}

    def merge(self, statistics: Sequence[Statistics], classes: int) -> None:
        """There is no shared head."""

    def layout(self, width: int, present: int) -> Sequence[Numbers]:
        """Nothing."""
        return ()

    def width(self, statistics: Statistics) -> int:
        """Of nothing."""
        return 0

    def exact(self, statistics: Statistics) -> Statistics:
        """Nothing."""
        return statistics

    def check(self, statistics: Statistics) -> None:
        """There is nothing to refuse."""


class TravellingHead:
    """What all heads have in common that the server makes.

    Attributes:
        rows: the entry of the statistics with a row of features for each class, ``[P, d]``.
    """

    travels: ClassVar[bool] = True
    kept: ClassVar[bool] = False
    logit_scale: ClassVar[float] = 1.0
    rows: ClassVar[str]

    def width(self, statistics: Statistics) -> int:
        """See ``HeadKind``."""
        return statistics[self.rows].shape[1]

    def exact(self, statistics: Statistics) -> Statistics:
        """See ``HeadKind``; as they are."""
        return statistics

    def check(self, statistics: Statistics) -> None:
        """See ``HeadKind``; takes all."""


def sent_bytes(statistics: Statistics) -> int:
    """The bytes of the tensors that are sent."""
    return sum(tensor.numel() * tensor.element_size() for tensor in statistics.values())


def sent_numbers(statistics: Statistics) -> int:
    """How many elements the tensors have (two int4 numbers in a byte are one element)."""
    return sum(tensor.numel() for tensor in statistics.values())


def check_features(features: Tensor, labels: Tensor, classes: int) -> None:
    """Refuse features from which no head can be learned.

    Raises:
        RecastError: none, not finite, or labels outside ``[0, classes)`` or of another number.
    """
    if features.dim() != 2 or labels.shape != features.shape[:1] or not len(labels):
        raise RecastError(
            f"features {list(features.shape)} and labels {list(labels.shape)}: give [N, d] and [N] "
            "with at least one example"
        )
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= classes:
        raise RecastError(
            f"labels from {low} to {high} for {classes} classes: use global class ids"
        )
    if not bool(torch.isfinite(features).all()):
        raise RecastError("features hold NaN or infinity: load finite coefficients first")


def check_merge(statistics: Sequence[Statistics], classes: int) -> None:
    """Refuse statistics that are none, not finite, or of unequal widths or strange classes."""
    if not statistics:
        raise RecastError("no statistics to merge a head from: wait for a client's answer")
    for one in statistics:
        ids = one["classes"].long()
        if ids.numel() and (int(ids.min()) < 0 or int(ids.max()) >= classes):
            raise RecastError(f"a client sent a class beyond the {classes} of the task: refuse it")
        if not all(bool(torch.isfinite(t.double()).all()) for t in one.values()):
            raise RecastError("a client's head statistics hold NaN or infinity: refuse them")


def class_sums(features: Tensor, labels: Tensor, classes: int) -> tuple[Tensor, Tensor]:
    """Float64 sums of the features ``[C, d]`` and counts ``[C]`` of each class."""
    sums = features.new_zeros(classes, features.shape[1], dtype=torch.float64)
    sums.index_add_(0, labels, features.double())
    return sums, torch.bincount(labels, minlength=classes).double()


def frozen_linear(weight: Tensor, bias: Tensor) -> nn.Linear:
    """A frozen float32 ``Linear`` of weight ``[C, d]`` and bias ``[C]``."""
    head = nn.Linear(weight.shape[1], weight.shape[0], device="meta")
    head.weight = nn.Parameter(weight.detach().float().contiguous(), requires_grad=False)
    head.bias = nn.Parameter(bias.detach().float().contiguous(), requires_grad=False)
    return head


def spread(values: Tensor, classes_present: Tensor, classes: int, fill: float = 0.0) -> Tensor:
    """Rows for the present classes as rows for all: ``[P, ...] -> [C, ...]``."""
    full = values.new_full((classes, *values.shape[1:]), fill)
    full[classes_present.long()] = values
    return full


@torch.no_grad()
def right_answers(
    head: nn.Module, features: Tensor, labels: Tensor, mix: Tensor | None = None
) -> int:
    """How many of features ``[N, d]`` a head classifies as ``labels [N]`` say.

    Args:
        head: from features to scores.
        features: float ``[N, d]``.
        labels: int64 ``[N]``.
        mix: float32 ``[C]``, the part that each class is expected to have: scores, which are then
            logits, count with its logarithm.
    """
    scores: Tensor = head(features)
    if mix is not None:
        scores = scores + mix.to(scores.device).log()
    return int((scores.argmax(1) == labels.to(features.device)).sum())
