"""The settings of a run: one flat set of names for the command line, Flower and Python."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields

from recast_core.config import RecastConfig
from recast_core.errors import RecastError
from recast_core.heads import head_kind
from recast_core.methods import parse_method
from recast_core.sources import source_kind
from recast_core.targets import patterns_of
from recast_core.wire.codec import check_bits
from recast_core.wire.messages import Hyperparameters
from recast_core.wire.transforms import chain

ROUNDINGS = ("nearest", "stochastic")
STATISTICS = ("frozen", "recompute")
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
class Settings:
    """What a federation runs. Flower's run config has the same names, with dashes.

    Attributes:
        backbone: see ``recast_core.backbones.load_backbone``.
        target: preset, or patterns separated by commas.
        groups: groups per bucket; 0 is one.
        templates: templates per group; 0 is one per layer.
        sets: coefficient sets K.
        basis: ``own`` or ``orthonormal``.
        residual: the residual form.
        source: where templates come from; ``seeded`` implies the residual form, and every client
            that has the backbone makes its bank from ``seed`` instead of being sent it.
        tasks: DATA specifications separated by spaces or commas, learned in this order.
        rounds: rounds per task.
        epochs: local passes per round.
        batch: images per local step.
        learning_rate: of what trains; 0 is the method's customary rate, 2e-2 for recast.
        head: ``local`` and ``linear``, heads that never leave their client, ``means``, ``ridge``
            and ``shared``, which the server merges, or ``backbone``, the deployed network's own,
            which stays as it is: the tasks are new domains of its classes.
        statistics: ``frozen``, or ``recompute``: with head ``backbone``, BatchNorms normalise by
            each client's own images wherever that serves it better.
        bits: width of an update's numbers.
        partition: how simulated clients divide a task's data.
        labels: how many training images of a task have a label, over all simulated clients; -1 is
            all. Clients with data of their own have the labels that these have.
        seed: of everything.
        device: ``auto``, ``cpu`` or ``cuda``.
        run_dir: where the registry goes; empty for a folder of its own under ``runs/``. A run in it
            that did not finish is continued.
        parallel_tasks: how many tasks are learned in the same rounds.
        clients_per_round: how many clients train a task in a round; 0 is all that have its data.
        deadline: seconds that a round, an evaluation or a greeting may take.
        quorum: how many updates close a round early: ``all``, a count such as ``5``, or a share of
            the clients asked such as ``0.8`` or ``80%``.
        keep_running: wait for further tasks when all are learned.
        method: what trains: see ``recast_core.methods.parse_method``; LoRA's target is ``target``
            where the method does not name one.
        bank: a bank's file, in place of making one.
        broadcast_bits: width of a broadcast's numbers.
        rounding: of an update's numbers, ``nearest`` or ``stochastic``.
        error_feedback: a client adds to an update what rounding took from the one before.
        baseline: where heads travel, also learn one on the backbone as it came, to report what the
            coefficients add.
        skip_unreadable: go on without images that cannot be read, where they lie in folders.
        aggregation: how a round's updates become a task's next coefficients: ``mean``, or a rule
            that a plug-in registers.
        transforms: of what a client has trained, before its update leaves: ``clip:LENGTH``, or what
            a plug-in registers, in their order.
    """

    backbone: str = "glyph_resnet20"
    target: str = "conv"
    groups: int = 0
    templates: int = 0
    sets: int = 1
    basis: str = "own"
    residual: bool = False
    source: str = "closed-form"
    tasks: str = "digits digits+inverted digits+rotated"
    rounds: int = 3
    epochs: int = 2
    batch: int = 32
    learning_rate: float = 0.0
    head: str = "local"
    statistics: str = "frozen"
    bits: int = 8
    partition: str = "dirichlet:0.5"
    labels: int = -1
    seed: int = 0
    device: str = "auto"
    run_dir: str = ""
    parallel_tasks: int = 1
    clients_per_round: int = 0
    deadline: float = 3600.0
    quorum: str = "all"
    keep_running: bool = False
    method: str = "recast"
    bank: str = ""
    broadcast_bits: int = 16
    rounding: str = "nearest"
    error_feedback: bool = False
    baseline: bool = True
    skip_unreadable: bool = False
    aggregation: str = "mean"
    transforms: str = ""

    def __post_init__(self) -> None:
        for name in ("rounds", "epochs", "batch", "parallel_tasks"):
            if getattr(self, name) < 1:
                raise RecastError(f"{name} is {getattr(self, name)}: give at least 1")
        if not 0 <= self.learning_rate < float("inf"):
            raise RecastError(f"learning_rate is {self.learning_rate}: give a number of 0 or more")
        if self.clients_per_round < 0:
            raise RecastError(
                f"clients_per_round is {self.clients_per_round}: give a number, or 0 for all"
            )
        if not 0 < self.deadline < float("inf"):
            raise RecastError(f"deadline is {self.deadline}: give seconds, more than 0")
        parse_quorum(self.quorum)
        if not 0 <= self.seed < 2**32:
            raise RecastError(f"seed is {self.seed}: give a whole number from 0 to 4294967295")
        head_kind(self.head)
        if self.statistics not in STATISTICS:
            raise RecastError(
                f"unknown statistics {self.statistics!r}: choose {' or '.join(STATISTICS)}"
            )
        if self.recomputes and self.head != "backbone":
            raise RecastError(
                f"statistics recompute and head {self.head}: the deployed classifier says where "
                "they help, use head backbone, or statistics frozen"
            )
        if self.labels < -1:
            raise RecastError(f"labels is {self.labels}: give a number, 0 for none or -1 for all")
        if self.labels == 0 and self.head != "backbone" and not self.head.startswith("task:"):
            raise RecastError(
                f"labels 0 and head {self.head}, which is fitted to labels: use head backbone or "
                "task:NAME, which a model brings, or give labels"
            )
        if self.rounding not in ROUNDINGS:
            raise RecastError(
                f"unknown rounding {self.rounding!r}: choose {' or '.join(ROUNDINGS)}"
            )
        if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", self.device):
            raise RecastError(f"unknown device {self.device!r}: choose auto, cpu or cuda")
        chain(self.transforms)
        check_bits(self.bits)
        check_bits(self.broadcast_bits)
        if self.canonical_method() != "recast" and self.bank:
            raise RecastError(f"method {self.method} has no bank: leave --bank out")
        patterns_of(self.target)
        self.recast()

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
                converted[name] = known[name](value)
            except ValueError as error:
                raise RecastError(
                    f"setting {key} is {value!r}: give a {known[name].__name__}"
                ) from error
        return cls(**converted)  # type: ignore[arg-type]  # each value has just been converted

    def as_dict(self) -> dict[str, Value]:
        """The settings as plain values, names with dashes."""
        return {field.name.replace("_", "-"): getattr(self, field.name) for field in fields(self)}

    def recast(self) -> RecastConfig:
        """The part that makes a bank."""
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
    def recomputes(self) -> bool:
        """Whether BatchNorms may take statistics of a client's own images."""
        return self.statistics == "recompute"

    @property
    def objective(self) -> str:
        """What clients lower: see ``recast_core.objectives``."""
        if self.head != "backbone":
            return "split-ridge"
        return "label-free" if self.labels == 0 else "cross-entropy"

    def hyperparameters(self, customary: float | None = None) -> Hyperparameters:
        """The part that a broadcast carries.

        Args:
            customary: the rate where none is set; the method's where ``None``.
        """
        if customary is None:
            customary = parse_method(self.canonical_method()).learning_rate
        return Hyperparameters(
            self.epochs,
            self.batch,
            self.learning_rate or customary,
            bits=self.bits,
            seed=self.seed,
            objective=self.objective,
            stochastic=self.rounding == "stochastic",
            error_feedback=self.error_feedback,
            transforms=self.transforms,
        )

    def canonical_method(self) -> str:
        """The method with everything that it depends on.

        Raises:
            RecastError: no such method.
        """
        return parse_method(self.method, self.target).canonical
