"""Methods of the study of tasks, and one federation of one of them."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from experiments.engines.folded import FoldedGrid
from experiments.studies.tasks_statistics import ALWAYS, CHOSEN, local_heads
from experiments.studies.trial import federation, tasks_of, trial
from recast_core.methods import parse_method
from recast_core.setting_values import Value
from recast_core.settings import Settings
from recast_core.task_spec import parse_tasks
from recast_core.text import how_many
from server.record.registry import Registry
from server.rounds.attendance import UnlearnableError

# Times the rate that a method declares.
FACTORS = (0.3, 1.0, 3.0)
# Of coefficients in units of a spread: the one that the study's factors were of.
_SPREAD_RATE = 0.2


@dataclass(frozen=True)
class Row:
    """A method of the table.

    Attributes:
        name: for people.
        method: as ``--method`` takes it; ``{}`` stands for the backbone's target.
        bank: of ``recast``: ``own``, a name that ``--banks`` gives files, or ``NAME:STEM`` of one.
        bits: of an update's numbers.
        head: as ``--head`` takes it.
        alone: each client trains for itself, and nothing is sent.
        statistics: of BatchNorms, a client's own: see ``tasks_statistics``; empty for none.
    """

    name: str
    method: str = "recast"
    bank: str = ""
    bits: int = 8
    head: str = "local"
    alone: bool = False
    statistics: str = ""

    @property
    def rate_of(self) -> tuple[str, ...]:
        """Rows that share this share a tuned rate."""
        return self.method, self.bank, *(("alone",) if self.alone else ())

    @property
    def free(self) -> bool:
        """Nothing but a head is learned."""
        return self.method == "head-only"


def _at(row: Row, *widths: int) -> tuple[Row, ...]:
    """The row, and itself with narrower numbers."""
    return row, *(
        replace(row, name=f"{row.name}, {how_many(bits, 'bit')}", bits=bits) for bits in widths
    )


LOCAL_HEAD = "local head"
ROWS = (
    Row(LOCAL_HEAD, "head-only"),
    Row(f"{LOCAL_HEAD}, own statistics", "head-only", statistics=ALWAYS),
    Row(f"{LOCAL_HEAD}, own statistics where they help", "head-only", statistics=CHOSEN),
    Row("alone, own weights", bank="own", alone=True),
    Row("alone, LoRA-XS 2", "lora-xs:2:{}", alone=True),
    Row("alone, norm affine", "norm-affine", alone=True),
    Row("alone, everything", "full", alone=True),
    *_at(Row("own weights", bank="own"), 4, 3, 2, 1),
    Row("alone, task directions", bank="tasks", alone=True),
    *_at(Row("task directions", bank="tasks"), 4, 3, 2, 1),
    *_at(Row("norm directions", bank="norms"), 4),
    Row("TinyLoRA 12 x 4", "tiny-lora:12:4:{}"),
    Row("TinyLoRA 24 x 4", "tiny-lora:24:4:{}"),
    *_at(Row("TinyLoRA 48 x 4", "tiny-lora:48:4:{}"), 4, 3, 2, 1),
    *_at(Row("TinyLoRA 96 x 4", "tiny-lora:96:4:{}"), 4),
    *_at(Row("TinyLoRA 192 x 4", "tiny-lora:192:4:{}"), 4),
    Row("norm groups 1", "norm-groups:1"),
    *_at(Row("norm groups 4", "norm-groups:4"), 4),
    *_at(Row("norm groups 16", "norm-groups:16"), 4, 3, 2, 1),
    Row("LoRA-XS 2", "lora-xs:2:{}"),
    Row("LoRA-XS 4", "lora-xs:4:{}"),
    Row("LoRA-XS 8", "lora-xs:8:{}"),
    Row("VeRA 16", "vera:16:{}"),
    *_at(Row("norm affine", "norm-affine"), 4, 1),
    *_at(Row("LoRA r1", "lora:1:{}"), 1),
    Row("LoRA r4", "lora:4:{}"),
    Row("everything (FedAvg)", "full", bits=32),
)
BY_NAME = {row.name: row for row in ROWS}


@dataclass(frozen=True)
class Terms:
    """What all federations of a study have in common.

    Attributes:
        backbone: as ``--backbone`` takes it.
        target: of methods that have one.
        clients: how many; 1 is centralised.
        rounds: of each task.
        epochs: in each round.
        batch: images a step.
        partition: as ``--partition`` takes it.
        banks: files by name.
    """

    backbone: str
    target: str
    clients: int
    rounds: int
    epochs: int
    batch: int
    partition: str
    banks: Mapping[str, str]

    def settings(self, row: Row, tasks: Iterable[str], seed: int, factor: float) -> Settings:
        """Of one federation; ``factor`` times the rate that the method declares."""
        method = row.method.format(self.target)
        values: dict[str, Value] = {
            "backbone": self.backbone, "target": self.target, "tasks": " ".join(tasks),
            "rounds": self.rounds, "epochs": self.epochs, "batch": self.batch, "seed": seed,
            "partition": self.partition if self.clients > 1 else "iid", "head": row.head,
            "method": method, "bits": row.bits, "decay": "cosine",
            "error-feedback": row.bits < 4,
        }  # fmt: skip
        if row.bank and row.bank != "own":
            values["bank"] = self.banks[row.bank]
        if not row.free:
            values["learning-rate"] = factor * base_rate(row, self.target)
        return Settings.from_mapping(values)


def federated(row: Row, terms: Terms, tasks: Sequence[str], seed: int, factor: float) -> Any:
    """Each task's accuracy and bytes, of one federation over the tasks in their order."""
    began = time.monotonic()
    report = trial(terms.settings(row, tasks, seed, factor), terms.clients)
    found = tasks_of(report)
    return {
        "tasks": {
            name: {
                "accuracy": task["accuracy"],
                "numbers": 0 if row.free else task["coefficients"],
                "update_bytes": 0 if row.free else task["update_bytes"],
                "up": task["method_message_up"],
                "down": task["method_message_down"],
            }
            for name, task in found.items()
        },
        "forgetting": report["forgetting"]["max_abs_change"],
        "bank_bytes": report["bank"]["bytes"],
        "seconds": round(time.monotonic() - began, 2),
    }


def by_statistics(row: Row, terms: Terms, tasks: Sequence[str], seed: int, factor: float) -> Any:
    """A local head of each client on statistics of its own images; no rate counts."""
    settings = terms.settings(row, tasks, seed, factor)
    return local_heads(settings, tasks, terms.clients, row.statistics)


def base_rate(row: Row, target: str) -> float:
    """What a method declares; of directions scaled to a spread, one of theirs."""
    if row.bank in ("", "own"):
        return parse_method(row.method.format(target)).learning_rate
    return _SPREAD_RATE


class _One(FoldedGrid):
    """A fleet of which one client alone is there."""

    def __init__(self, clients: int, settings: Settings, node: int) -> None:
        super().__init__(clients, settings)
        self._only = node

    def get_node_ids(self) -> Iterable[int]:
        """That one."""
        return [self._only]


def alone(row: Row, terms: Terms, tasks: Sequence[str], seed: int, factor: float) -> Any:
    """The same where each client keeps what it learned: weighted by its test images.

    Who has one class alone of a task is left out of that task, as a federation leaves it out.
    """
    began = time.monotonic()
    settings = terms.settings(row, tasks, seed, factor)
    right: dict[str, float] = {}
    total: dict[str, int] = {}
    for node in range(1, terms.clients + 1):
        for name, accuracy, examples in _of_one(settings, terms.clients, node):
            right[name] = right.get(name, 0.0) + accuracy * examples
            total[name] = total.get(name, 0) + examples
    nothing = {"numbers": 0, "update_bytes": 0, "up": 0.0, "down": 0.0}
    return {
        "tasks": {name: {"accuracy": right[name] / total[name], **nothing} for name in total},
        "examples": total,
        "forgetting": 0.0,
        "bank_bytes": 0,
        "seconds": round(time.monotonic() - began, 2),
    }


def _of_one(settings: Settings, clients: int, node: int) -> list[tuple[str, float, int]]:
    """What one client learned alone: each task's name, accuracy and test images."""
    try:
        with (
            federation(settings, clients, _One(clients, settings, node)) as result,
            Registry(result.registry) as registry,
        ):
            names = {task.number: task.name for task in registry.tasks(result.run)}
            first = {one.task: one for one in reversed(registry.accuracies(result.run))}
            return [(names[task], one.accuracy, one.examples) for task, one in first.items()]
    except UnlearnableError:
        pass
    tasks = [str(task) for task in parse_tasks(settings.tasks)]
    each = [replace(settings, tasks=task) for task in tasks if len(tasks) > 1]
    return [found for single in each for found in _of_one(single, clients, node)]
