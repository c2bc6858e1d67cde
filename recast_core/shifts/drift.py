"""Drift inside a task: a severity that moves from round to round (``fog:1-5``)."""

from __future__ import annotations

from dataclasses import replace

from recast_core.shifts.table import severity_of
from recast_core.task_spec import TaskSpec


def at_round(spec: TaskSpec, round_: int, rounds: int) -> TaskSpec:
    """The task as its images are in a round; as they are at the end where ``round_`` is 0.

    A severity ``A-B`` is A in the first round and B in the last, and moves evenly between them, in
    whole numbers, halves rounded up. Nothing else changes, the name included.

    Args:
        spec: of the task.
        round_: from 1; later ones than the last are as the last.
        rounds: of a task.
    """
    moved = tuple(_at(transform, round_, rounds) for transform in spec.transforms)
    return spec if moved == spec.transforms else replace(spec, transforms=moved)


def _at(transform: str, round_: int, rounds: int) -> str:
    name, _, level = transform.partition(":")
    first, dash, last = level.partition("-")
    if not dash:
        return transform
    begins, ends = severity_of(first, name), severity_of(last, name)
    steps, done = rounds - 1, round_ - 1
    if not 0 <= done < steps:
        return f"{name}:{ends}"
    return f"{name}:{begins + (2 * (ends - begins) * done + steps) // (2 * steps)}"
