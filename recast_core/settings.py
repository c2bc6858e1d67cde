"""The settings of a run: one flat set of names for the command line, Flower and Python."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING

from recast_core.errors import RecastError
from recast_core.recipe import TrainingSettings, setting

if TYPE_CHECKING:
    from recast_core.config import RecastConfig
    from recast_core.wire.messages import Hyperparameters


DEPLOYED = "digits_resnet20"
# One LoRaWAN frame at DR0, and what an update has besides its numbers, at the most.
FRAME, OVERHEAD = 51, 23
Value = bool | int | float | str


def parse_quorum(text: str) -> int | float:
    """How many updates close a round: a count (int), or a share of the clients asked (float).

    Raises:
        RecastError: neither ``all`` nor a positive count, nor a share of at most one.
    """
    word = text.strip().lower()
    try:
        if word == "all":
            return 1.0
        if word.isdecimal():
            found: int | float = int(word)
        elif word.endswith("%"):
            found = float(word[:-1]) / 100
        else:
            found = float(word)
    except ValueError:
        found = 0
    if not found > 0 or (isinstance(found, float) and found > 1):
        raise RecastError(
            f"cannot read quorum {text!r}: give all, a count such as 5, or a share such as 0.8"
        )
    return found


@dataclass(frozen=True)
class Adaptation:
    """What of the backbone is adapted, and by which method."""

    backbone: str = setting(
        DEPLOYED,
        "digits_resnet20 (a classifier of digits), glyph_resnet20 (it saw letters), a torchvision "
        "NAME:WEIGHTS, file:PATH or module:FACTORY.",
    )
    target: str = setting(
        "conv", "attn, mlp, attn+mlp, conv, or module-name patterns with commas.", bank=True
    )
    groups: int = setting(0, "Groups for each kind of layer; 0 is one.", bank=True)
    templates: int = setting(
        0, "Templates per group; 0 is one per layer, which is exact.", bank=True
    )
    sets: int = setting(1, "Coefficient sets K; their mean is sent.", bank=True)
    basis: str = setting("own", "own (the layers' own weights) or orthonormal.", bank=True)
    residual: bool = setting(False, "Add combinations to the backbone's own weights.", bank=True)
    source: str = setting(
        "closed-form",
        "closed-form, gradient, vae or seeded: where templates come from. Of seeded ones every "
        "client makes the bank itself, from --seed.",
    )
    bank: str = setting(
        "", "A bank's file or a packaged one (digits_resnet20), in place of making one."
    )
    method: str = setting(
        "recast",
        "recast, head-only, norm-affine, lora[:RANK[:TARGET]], full, ...: what trains. LoRA's "
        "target is --target where it names none.",
    )

    def canonical_method(self) -> str:
        """The method with everything that it depends on.

        Raises:
            RecastError: no such method.
        """
        from recast_core.methods import parse_method

        return parse_method(self.method, self.target).canonical


@dataclass(frozen=True)
class Settings(TrainingSettings, Adaptation):
    """What a federation runs. Flower's run config has the same names, with dashes.

    A field is all that a setting needs: the command line and its help are made from it.
    """

    learning_rate: float = setting(
        0.0, "Of what trains; 0 is the method's customary rate, 2e-2 for recast."
    )
    epochs: int = setting(4, "Local passes per round.")
    decay: str = setting(
        "auto",
        "none or cosine: how the learning rate falls over a task's rounds. auto is cosine with "
        "head backbone, else none.",
    )
    begin: str = setting(
        "nearest",
        "nearest or bank: with head backbone, a task starts at the earlier task that fits a few of "
        "each client's images best, or at the bank's start.",
    )
    tasks: str = setting(
        "impulse=digits[50%:]+impulse:4 motion=digits[50%:]+motion:4 fog=digits[50%:]+fog:5",
        'DATA specifications, learned in this order, e.g. "digits npz:flowers.npz".',
    )
    rounds: int = setting(6, "Rounds per task.")
    head: str = setting(
        "auto",
        "local or linear (stay on their client), means, ridge or shared (merged by the server), or "
        "backbone (the deployed network's own, kept: tasks are new domains of its classes). auto: "
        "backbone for the packaged digits_resnet20 and tasks of digits, else local.",
    )
    statistics: str = setting(
        "auto",
        "frozen, or recompute: with head backbone, BatchNorms normalise by each client's own "
        "images wherever that serves it better. auto recomputes with head backbone.",
    )
    bits: int = setting(
        0,
        "Width of an update's numbers: 32, 16, or 8 to 1. 0 is 8, or down to 4 where an "
        "update then fits one LoRaWAN frame of 51 bytes.",
    )
    broadcast_bits: int = setting(16, "Width of a broadcast's numbers: 32, 16, or 8 to 1.")
    rounding: str = setting("nearest", "nearest or stochastic: of an update's numbers.")
    error_feedback: bool = setting(
        False, "Add to an update what rounding took from the one before."
    )
    transforms: str = setting(
        "",
        "What clients do to an update before it leaves, in this order: clip:LENGTH, or what a "
        "plug-in registers.",
    )
    aggregation: str = setting("mean", "How updates become the next coefficients: mean.")
    partition: str = setting(
        "dirichlet:0.5",
        "iid, dirichlet:ALPHA, shards:CLASSES or natural: how simulated clients divide a task.",
    )
    labels: int = setting(
        -1,
        "Labelled training images of a task in the whole simulated fleet; -1 is all. Clients with "
        "data of their own have the labels that these have.",
    )
    skip_unreadable: bool = setting(False, "Go on without images in folders that cannot be read.")
    seed: int = setting(0, "Of everything.")
    device: str = setting("auto", "auto, cpu or cuda.")
    run_dir: str = setting(
        "",
        "Where the registry goes, by default a folder of its own under runs/; an unfinished run "
        "in it is continued.",
    )
    parallel_tasks: int = setting(1, "Tasks learned in the same rounds; 1 is one after another.")
    clients_per_round: int = setting(0, "Clients that train a task in a round; 0 is all.")
    deadline: float = setting(3600.0, "Seconds that a round, evaluation or greeting may take.")
    quorum: str = setting(
        "all", "Updates that close a round early: all, a count (5) or a share (0.8)."
    )
    max_lag: float = setting(
        10.0,
        "Times as long as the others that a client may take before it is no longer waited for, 20 "
        "seconds at least; 0 for the deadline alone.",
    )
    keep_running: bool = setting(False, "Wait for `recast tasks add` when all tasks are learned.")
    baseline: bool = setting(
        True,
        "Where heads travel, also learn one on the backbone as it came, to report what the "
        "coefficients add.",
    )

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
        converted: dict[str, Value] = {}
        for key, value in values.items():
            name = key.replace("-", "_")
            if name not in known:
                near = difflib.get_close_matches(name, known, n=1)
                hint = f", did you mean {near[0]}?" if near else ""
                raise RecastError(f"unknown setting {key!r}{hint}")
            try:
                converted[name] = _converted(value, known[name])
            except ValueError as error:
                raise RecastError(
                    f"setting {key} is {value!r}: give {_WANTED[known[name]]}"
                ) from error
        return cls(**converted)  # type: ignore[arg-type]  # each value has just been converted

    def as_dict(self) -> dict[str, Value]:
        """The settings as plain values, names with dashes."""
        return {field.name.replace("_", "-"): getattr(self, field.name) for field in fields(self)}

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
        """The head's kind, where ``head`` leaves it open too."""
        if self.head != "auto":
            return self.head
        return "backbone" if self.backbone == DEPLOYED and _of_digits(self.tasks) else "local"

    @property
    def recomputes(self) -> bool:
        """Whether BatchNorms may take statistics of a client's own images."""
        return self.statistics == "recompute" or (
            self.statistics == "auto" and self.head_kind == "backbone"
        )

    @property
    def falls(self) -> bool:
        """Whether the learning rate falls over a task's rounds."""
        return self.decay == "cosine" or (self.decay == "auto" and self.head_kind == "backbone")

    def settled(self) -> Settings:
        """The same with what was left open said, so that it stays if the backbone is renamed."""
        statistics = "recompute" if self.recomputes else "frozen"
        decay = "cosine" if self.falls else "none"
        return replace(self, head=self.head_kind, statistics=statistics, decay=decay)

    @property
    def objective(self) -> str:
        """What clients lower: see ``recast_core.objectives``."""
        if self.head_kind != "backbone":
            return "split-ridge"
        return "label-free" if self.labels == 0 else "cross-entropy"

    def width(self, numbers: int) -> int:
        """Bits of each of an update's ``numbers``, where ``bits`` leaves it open too."""
        return self.bits or fitting_width(numbers)

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


def fitting_width(numbers: int) -> int:
    """8 bits, or the most of 7 to 4 in which so many numbers fit a frame of ``FRAME`` bytes."""
    for bits in (8, 7, 6, 5, 4):
        if OVERHEAD + -(-numbers * bits // 8) <= FRAME:
            return bits
    return 8


def _of_digits(tasks: str) -> bool:
    """Whether all tasks are of the data that the packaged classifier knows."""
    from recast_core.task_spec import parse_tasks

    return all(spec.data == "digits" for spec in parse_tasks(tasks))


_WANTED = {int: "a whole number", float: "a number", bool: "true or false", str: "a text"}
_TRUTHS = {"true": True, "1": True, "false": False, "0": False}


def _converted(value: Value, kind: type[Value]) -> Value:
    """``value`` as ``kind``; raises ValueError where that would change what it says."""
    if kind is bool:
        if str(value).lower() not in _TRUTHS:
            raise ValueError
        return _TRUTHS[str(value).lower()]
    if kind is int and isinstance(value, float) and not value.is_integer():
        raise ValueError
    return kind(value)
