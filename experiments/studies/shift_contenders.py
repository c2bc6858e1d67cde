"""What the study of shifts compares: each row's method, its grid of rates, its label budgets."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from recast_core.config import RecastConfig

_SMALL = 1_000_000
# Two neighbouring blocks of a ResNet-34 share templates: 44 numbers.
_PAIRS = tuple(
    f"*layer{stage}.{blocks}.conv{place}"
    for stage, blocks in (
        (1, "[12]"), (2, "[12]"), (2, "3"), (3, "[12]"), (3, "[34]"), (3, "5"), (4, "[12]"),
    )
    for place in (1, 2)
)  # fmt: skip

ALL, NONE = -1, 0
FEW = (64, 256)
# Labels that rates are tuned with, for all label budgets of a kind.
REGIMES = {"many": 1024, "few": 256, "none": NONE}


@dataclass(frozen=True)
class Contender:
    """A row of the table.

    Attributes:
        name: for people.
        method: as ``--method`` takes it; ``{}`` stands for LoRA's target.
        grid: rates that are tried on validation images.
        bank: of ``recast``: ``own`` or ``shifts``.
        free_grid: rates that are tried where there are no labels.
        bits: of an update's numbers.
        rates_of: the contender whose tuned rate is taken; its own where empty.
        server: Adam at the server, whose rate is what the grid holds.
        alone: each client trains for itself.
        central: one client has all images.
        budgets: of labels, the first and the second with the rows that matter most.
    """

    name: str
    method: str
    grid: tuple[float, ...] = ()
    bank: str = ""
    free_grid: tuple[float, ...] = ()
    bits: int = 8
    rates_of: str = ""
    server: bool = False
    alone: bool = False
    central: bool = False
    budgets: tuple[int, ...] = (ALL, 64, 1024, 256)

    @property
    def free(self) -> bool:
        """Whether nothing trains: a baseline that costs no byte."""
        return not self.grid and not self.rates_of

    def rates(self, regime: str) -> tuple[float, ...]:
        """The grid for a kind of label budget."""
        return self.free_grid if regime == "none" else self.grid


COEFFICIENTS, FULL = "coefficients", "FedAvg"
DEPLOYED, STATISTICS, LOCAL_HEAD = "as deployed", "statistics", "local head"
EVERY = (ALL, 64, NONE, 1024, 256)

CONTENDERS = (
    Contender(DEPLOYED, "head-only", budgets=(ALL,)),
    Contender(STATISTICS, "head-only", budgets=EVERY),
    Contender(COEFFICIENTS, "recast", (0.2, 0.4, 0.8), "shifts", (0.05, 0.1, 0.2),
              budgets=EVERY),
    Contender(FULL, "full", (2e-4, 6e-4, 2e-3), bits=32),
    Contender("norm affine", "norm-affine", (3e-3, 1e-2, 3e-2),
              free_grid=(3e-4, 1e-3, 3e-3), budgets=EVERY),
    Contender("centralised, everything", "full", (2e-4, 6e-4, 2e-3), bits=32, central=True,
              budgets=(ALL,)),
    Contender(LOCAL_HEAD, "head-only"),
    Contender("alone, everything", "full", (2e-4, 6e-4, 2e-3), alone=True, bits=32),
    Contender("alone, coefficients", "recast", bank="shifts", rates_of=COEFFICIENTS, alone=True),
    Contender("alone, norm affine", "norm-affine", rates_of="norm affine", alone=True),
    Contender("own weights", "recast", (1e-2, 3e-2, 1e-1), "own"),
    Contender("norm affine, 1 bit", "norm-affine", bits=1, rates_of="norm affine"),
    Contender("LoRA r4", "lora:4:{}", (1e-3, 3e-3, 1e-2)),
    Contender("LoRA r1", "lora:1:{}", rates_of="LoRA r4"),
    Contender("FedAvg, server Adam", "full", (1e-4, 3e-4, 1e-3), bits=32, server=True),
)  # fmt: skip
BY_NAME = {contender.name: contender for contender in CONTENDERS}
_MAIN = (DEPLOYED, STATISTICS, COEFFICIENTS, FULL, "norm affine", "centralised, everything")
_NEXT = (LOCAL_HEAD, "alone, everything")
PHASES = range(3)
_LEAD = 3


@dataclass(frozen=True, order=True)
class Key:
    """Names a row of results within a network, a data set and a shift."""

    contender: str
    labels: int
    seed: int


def regime_of(labels: int) -> str:
    """The kind of a label budget."""
    if labels == NONE:
        return "none"
    return "few" if labels in FEW else "many"


def own_weights(kind: str, parameters: int) -> RecastConfig:
    """Which weights make a bank of the network's own, 44 or 48 numbers for the paper's networks."""
    everything = RecastConfig(target="conv")
    if parameters <= _SMALL:
        return everything
    of_kind = {
        "layer-norm": RecastConfig.preset("recast-mlp"),
        "batch-norm": RecastConfig(target=_PAIRS),
    }
    return of_kind.get(kind, everything)


def cells_in_order(cells: int) -> list[tuple[int, int]]:
    """Phases of a study and places of its cells: a phase begins when the one before has a lead."""
    every = [(phase, cell) for phase in PHASES for cell in range(cells)]
    return sorted(every, key=lambda one: (_LEAD * one[0] + one[1], -one[0]))


def in_order(phase: int, seeds: int) -> Iterator[Key]:
    """A cell's rows of a phase, all seeds of a row together.

    First the main contenders at all and at 64 labels; then their other budgets, and what needs no
    federation; then the others.
    """
    rows = [
        (place, each.name, labels)
        for each in CONTENDERS
        for place, labels in enumerate(each.budgets)
        if phase == _phase(each.name, place)
    ]
    for _, name, labels in sorted(rows, key=lambda row: row[0]):
        # The yardstick is measured once: its labels are dealt to nobody.
        for seed in range(1 if BY_NAME[name].central else seeds):
            yield Key(name, labels, seed)


def _phase(name: str, place: int) -> int:
    if name in _MAIN:
        return int(place > 1)
    return 1 if name in _NEXT and place < 2 else 2
