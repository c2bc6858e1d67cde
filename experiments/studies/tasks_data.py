"""Images of the study of tasks: so many of each task, and splits to choose rates by."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from client.data import load_dataset, parse_task
from client.data.arrays import Dataset, stratified_split

_HELD = 0.25


def materialised(
    task: str, size: int, images: int, folder: Path, *, validate: bool, tests: int | None = None
) -> str:
    """A task as a file of its own, in the task grammar under the name that it had.

    Args:
        task: in the task grammar.
        size: of the backbone's images.
        images: training images at most: the same share of each class.
        folder: for the file.
        validate: judge by a quarter of the training images, which are then not learned from, in
            place of the test images.
        tests: test images at most; all where ``None``.

    Raises:
        RecastError: no such task.
    """
    spec = parse_task(task)
    data = load_dataset(spec, size)
    x, y = _some(data.x_train, data.y_train, images)
    judge = _some(data.x_test, data.y_test, len(data.y_test) if tests is None else tests)
    if validate:
        learn, held = stratified_split(y, _HELD, 0)
        judge = x[held], y[held]
        x, y = x[learn], y[learn]
    data = replace(data, x_train=x, y_train=y, x_test=judge[0], y_test=judge[1])
    path = folder / f"{spec.name}{'-validation' if validate else ''}.npz"
    save(path, data)
    return f"{spec.name}=npz:{path}"


def _some(x: np.ndarray, y: np.ndarray, images: int) -> tuple[np.ndarray, np.ndarray]:
    if len(y) <= images:
        return x, y
    _, kept = stratified_split(y, images / len(y), 1)
    return x[kept], y[kept]


def save(path: Path, data: Dataset) -> None:
    """Write a data set, without classes that it has no training image of."""
    kept = np.unique(data.y_train)
    of = {int(old): new for new, old in enumerate(kept)}
    known = np.isin(data.y_test, kept)
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(
        path,
        x_train=data.x_train,
        y_train=np.array([of[int(label)] for label in data.y_train]),
        x_test=data.x_test[known],
        y_test=np.array([of[int(label)] for label in data.y_test[known]]),
        classes=np.array([data.classes[int(label)] for label in kept]),
    )
