"""What a shift bank can give at most: everybody's images in one place.

``python -m experiments.studies.bank_trials`` fits the packaged bank's 48 coefficients, and all but
the classifier, to all training images of each task together, and to few of them; the clients' test
images judge. There is no federation, no head of a client's own and no label mix.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from functools import partial
from statistics import fmean

import numpy as np
import torch

from client.data import load_dataset, parse_tasks
from experiments.studies.one_line import in_one_line
from recast_core.backbones import load_backbone
from recast_core.banks import load_bank
from recast_core.sources.held_out_shifts import Gain, Trial, held_out_gains

_SHIFTS = ("impulse:4", "motion:4", "rain:5", "fog:5")
_TASKS = " ".join(f"{shift.partition(':')[0]}=digits[50%:]+{shift}" for shift in _SHIFTS)
_RATE = 1e-3


def gains(
    backbone: str, bank: str, tasks: str, labels: int | None, seed: int, device: torch.device
) -> list[Gain]:
    """One for each task, in order.

    Args:
        backbone: the deployed classifier.
        bank: a shift bank of it.
        tasks: of data that have all its classes.
        labels: how many training images are fitted to, drawn by ``seed``; all where ``None``.
        seed: of that draw.
        device: where.

    Raises:
        RecastError: tasks, a backbone or a bank that are not there.
    """
    loaded = load_backbone(backbone)
    trials = []
    for task in parse_tasks(tasks):
        data = load_dataset(task, loaded.preprocess.size)
        chosen = np.random.default_rng(seed).permutation(len(data.y_train))[:labels]
        images = np.concatenate([data.x_train[chosen], data.x_test])
        told = torch.from_numpy(np.concatenate([data.y_train[chosen], data.y_test]))
        trials.append(Trial(task.name, partial(loaded.preprocess, images), told, len(chosen)))
    return held_out_gains(loaded.model, loaded.head, load_bank(bank), trials, _RATE, device)


def row(name: str, by_seed: Sequence[tuple[Gain, Gain]]) -> str:
    """A line of the table: a task with all labels and with few, means over seeds."""
    figures = [
        (full.deployed, full.statistics, full.coefficients, full.full, few.coefficients, few.full)
        for full, few in by_seed
    ]
    means = [fmean(values) for values in zip(*figures, strict=True)]
    return f"| {name} | " + " | ".join(f"{100 * mean:.1f}" for mean in means) + " |"


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments.studies.bank_trials",
        description=(__doc__ or "").split("\n")[0],
    )
    parser.add_argument("--backbone", default="digits_resnet20")
    parser.add_argument("--bank", default="digits_resnet20")
    parser.add_argument("--tasks", default=_TASKS)
    parser.add_argument("--labels", type=int, default=64, help="of the columns with few")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    given = parser.parse_args(arguments)
    device = torch.device("cpu")
    found: dict[str, list[tuple[Gain, Gain]]] = {}
    for seed in given.seeds:
        made = (
            gains(given.backbone, given.bank, given.tasks, labels, seed, device)
            for labels in (None, given.labels)
        )
        for pair in zip(*made, strict=True):
            found.setdefault(pair[0].shift, []).append(pair)
    few = given.labels
    print("| shift | as deployed | statistics | coefficients | everything ", end="")
    print(f"| coefficients, {few} labels | everything, {few} labels |")
    print("|---|" + "--:|" * 6)
    for name, pairs in found.items():
        print(row(name, pairs))


if __name__ == "__main__":
    in_one_line(main)
