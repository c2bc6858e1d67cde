"""Each client's share of a run's tasks as files of its own, for programs that take a folder."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from client.data import load_dataset, parse_tasks, partition
from recast_core.backbones import load_backbone
from recast_core.settings import Settings


def deal(settings: Settings, clients: int, folder: Path) -> list[Path]:
    """Write the partitions that simulated clients would take; returns a folder for each client.

    Args:
        settings: whose tasks, partition, seed and backbone (for the size of images) are meant.
        clients: how many partitions.
        folder: gets a folder ``0``, ``1`` ... for each client, with ``TASK.npz`` in it.

    Raises:
        RecastError: a task, a partition or a backbone that cannot be had.
    """
    folders = [folder / str(index) for index in range(clients)]
    size = load_backbone(settings.backbone).preprocess.size
    for task in parse_tasks(settings.tasks):
        dataset = load_dataset(task, size)
        for index, path in enumerate(folders):
            data = partition(
                dataset,
                index,
                clients,
                scheme=settings.partition,
                seed=settings.seed,
                labels=settings.labels,
            )
            path.mkdir(parents=True, exist_ok=True)
            np.savez(
                path / f"{task.name}.npz",
                x_train=data.x_train, y_train=data.y_train,
                x_test=data.x_test, y_test=data.y_test,
                classes=np.array(dataset.classes),
            )  # fmt: skip
    return folders
