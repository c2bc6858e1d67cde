"""The settings of a run: one flat set of names for the command line, Flower and Python."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING

from recast_core.errors import RecastError
from recast_core.kept_task import KeptTask, parse_kept
from recast_core.setting_fields import (
    DEPLOYED,
    Adaptation,
    Images,
    Learning,
    Privacy,
    Running,
    Updates,
)
from recast_core.setting_values import WANTED, Value, converted

if TYPE_CHECKING:
    from recast_core.config import RecastConfig
    from recast_core.wire.messages import Hyperparameters

# One LoRaWAN frame at DR0, what an update has besides its numbers at the most, and a loss in it.
FRAME, OVERHEAD, LOSS = 51, 23, 3


@dataclass(frozen=True)
class Settings(Running, Images, Privacy, Updates, Learning, Adaptation):
    """What a federation runs. Flower's run config has the same names, with dashes.

    Its fields are those of ``recast_core.setting_fields``.
    """

    def __post_init__(self) -> None:
        # Here, not above: names, defaults and help must not wait for torch.
        from recast_core.settings_check import check

        check(self)

    @classmethod
    def from_mapping(cls, values: Mapping[str, Value]) -> Settings:
        """Settings from names with dashes or underscores; what is absent keeps its default.

        Raises:
            RecastError: an unknown name, or a value that does not fit.
        """
        known = {field.name: type(getattr(cls, field.name)) for field in fields(cls)}
        read: dict[str, Value] = {}
        for key, value in values.items():
            name = key.replace("-", "_")
            if name not in known:
                near = difflib.get_close_matches(name, known, n=1)
                hint = f", did you mean {near[0]}?" if near else ""
                raise RecastError(f"unknown setting {key!r}{hint}")
            try:
                read[name] = converted(value, known[name])
            except ValueError as error:
                raise RecastError(
                    f"setting {key} is {value!r}: give {WANTED[known[name]]}"
                ) from error
        return cls(**read)  # type: ignore[arg-type]  # each value has just been converted

    def as_dict(self) -> dict[str, Value]:
        """The settings as plain values, names with dashes."""
        return {field.name.replace("_", "-"): getattr(self, field.name) for field in fields(self)}

    def canonical_method(self) -> str:
        """The method with everything that it depends on.

        Raises:
            RecastError: no such method.
        """
        from recast_core.methods import parse_method

        return parse_method(self.method, self.target).canonical

    def recast(self) -> RecastConfig:
        """The part that makes a bank."""
        from recast_core.config import RecastConfig
        from recast_core.sources import source_kind

        return RecastConfig(
            target=self.target,
            groups=self.groups or None,
            templates=self.templates or None,
            sets=self.sets,
            basis=self.basis,  # type: ignore[arg-type]  # RecastConfig checks it
            residual=self.residual or source_kind(self.source).residual,
            source=self.source,
            seed=self.seed,
        )

    @property
    def head_kind(self) -> str:
        """The kind of heads of tasks that keep no earlier one's; see ``head``."""
        kept = parse_kept(self.head)
        if kept is None and self.head != "auto":
            return self.head
        if kept is not None and (kept.kind or kept.path):
            return kept.kind or "ridge"
        if self.backbone == DEPLOYED and _of_digits(self.tasks):
            return "backbone"
        return "local" if kept is None else "ridge"

    @property
    def kept_task(self) -> KeptTask | None:
        """The earlier task whose head later tasks keep; none where that is the deployed one."""
        kept = parse_kept(self.head)
        return None if self.head_kind == "backbone" else kept

    @property
    def keeps(self) -> bool:
        """Whether there are tasks that keep a classifier, the deployed one or an earlier task's."""
        return self.head_kind == "backbone" or self.kept_task is not None

    @property
    def all_keep(self) -> bool:
        """Whether no task of the run learns a head of its own."""
        kept = self.kept_task
        return self.head_kind == "backbone" or (kept is not None and bool(kept.path))

    @property
    def recomputes(self) -> bool:
        """Whether BatchNorms may take statistics of a client's own images."""
        return self.statistics == "recompute" or (self.statistics == "auto" and self.keeps)

    @property
    def falls(self) -> bool:
        """Whether the learning rate of tasks that keep a classifier falls over their rounds.

        Of other tasks it does only where ``decay`` is cosine.
        """
        return self.decay == "cosine" or (self.decay == "auto" and self.keeps)

    def settled(self) -> Settings:
        """The same with what was left open said, so that it stays if the backbone is renamed."""
        statistics = "recompute" if self.recomputes else "frozen"
        decay = self.decay
        if self.all_keep or not self.keeps:
            decay = "cosine" if self.falls else "none"
        kept, head = self.kept_task, self.head_kind
        if kept is not None:
            head = kept.setting if kept.path else replace(kept, kind=head).setting
        return replace(self, head=head, statistics=statistics, decay=decay)

    @property
    def objective(self) -> str:
        """What clients lower for a task's own head: see ``recast_core.objectives``."""
        return self.kept_objective if self.all_keep else "split-ridge"

    @property
    def kept_objective(self) -> str:
        """What clients lower where a classifier is kept."""
        return "label-free" if self.labels == 0 else "cross-entropy"

    def width(self, numbers: int) -> int:
        """Bits of each of an update's ``numbers``, where ``bits`` leaves it open too."""
        return self.bits or fitting_width(numbers, OVERHEAD + LOSS * self.report_loss)

    def hyperparameters(self, customary: float | None = None, numbers: int = 0) -> Hyperparameters:
        """The part that a broadcast carries: the fields of both, by name.

        Args:
            customary: the rate where none is set; the method's where ``None``.
            numbers: of an update.
        """
        from recast_core.methods import parse_method
        from recast_core.wire.messages import Hyperparameters

        told = {
            field.name: getattr(self, field.name)
            for field in fields(Hyperparameters)
            if hasattr(self, field.name)
        }
        if customary is None:
            customary = parse_method(self.canonical_method()).learning_rate
        told |= {"learning_rate": self.learning_rate or customary, "bits": self.width(numbers)}
        return Hyperparameters(**told, stochastic=self.rounding == "stochastic")


def fitting_width(numbers: int, overhead: int = OVERHEAD) -> int:
    """8 bits, or the most of 7 to 4 in which so many numbers fit a frame of ``FRAME`` bytes.

    ``overhead`` is what an update has besides.
    """
    for bits in (8, 7, 6, 5, 4):
        if overhead + -(-numbers * bits // 8) <= FRAME:
            return bits
    return 8


def _of_digits(tasks: str) -> bool:
    """Whether all tasks are of the data that the packaged classifier knows."""
    from recast_core.task_spec import parse_tasks

    return all(spec.data == "digits" for spec in parse_tasks(tasks))
