"""What starting at the nearest earlier task is worth: A, B, A again, A and B together.

``python -m experiments.studies.again`` learns four tasks one after another, once with every task
starting at the earlier one that clearly fits its clients better (the default) and once all from
the bank, and prints accuracies after so many rounds, gains over nothing learned among them, and how
much of what earlier tasks predict has changed. With ``--validate`` a fifth of the training images
judges, which nobody learns from.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

from client.data import load_dataset, parse_tasks
from client.data.arrays import Dataset, stratified_split
from experiments.studies.one_line import in_one_line
from experiments.studies.tasks_data import save
from experiments.studies.trial import tasks_of, trial
from recast_core.backbones import load_backbone
from recast_core.setting_fields import DEPLOYED
from recast_core.setting_values import Value
from recast_core.settings import Settings

BEGINS = ("nearest", "bank")
ORDER = ("A", "B", "A-again", "A-and-B")


def sequence(data: str, first: str, second: str) -> str:
    """The four tasks in the task grammar, named as in ``ORDER``."""
    kinds = (first, second, first, f"{first}+{second}")
    return " ".join(f"{name}={data}+{kind}" for name, kind in zip(ORDER, kinds, strict=True))


def held_out(data: str, seed: int, folder: Path) -> str:
    """DATA whose test images are a fifth of the training images of ``data``, of each class."""
    [spec] = parse_tasks(data)
    found = load_dataset(spec, load_backbone(DEPLOYED).preprocess.size)
    learn, judge = stratified_split(found.y_train, 0.2, seed)
    path = folder / f"held-out-{seed}.npz"
    images, labels = found.x_train, found.y_train
    save(path, Dataset(images[learn], labels[learn], images[judge], labels[judge], found.classes))
    return f"npz:{path}"


def row(
    tasks: str, begin: str, seed: int, clients: int, rounds: int
) -> tuple[dict[str, float], dict[str, float], float]:
    """Accuracy of each task, of the best that sends nothing, and the change of earlier tasks."""
    values: dict[str, Value] = {
        "tasks": tasks, "begin": begin, "seed": seed, "rounds": rounds, "device": "cpu",
        "head": "backbone",
    }  # fmt: skip
    report = trial(Settings.from_mapping(values), clients)
    found = tasks_of(report)
    right = {name: float(found[name]["accuracy"]) for name in ORDER}
    free = {name: float(found[name]["zero_byte_accuracy"]) for name in ORDER}
    return right, free, float(report["forgetting"]["max_abs_change"])


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments.studies.again", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--data", default="digits[50%:]")
    parser.add_argument("--first", default="impulse:4")
    parser.add_argument("--second", default="motion:4")
    parser.add_argument("--clients", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--begins", nargs="+", choices=BEGINS, default=BEGINS)
    parser.add_argument("--validate", action="store_true", help="judge by training images")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="recast-") as folder:
        _print_table(options, Path(folder))


def _print_table(options: argparse.Namespace, folder: Path) -> None:
    said = sequence(options.data, options.first, options.second)
    print(f"{options.clients} clients, {options.rounds} rounds a task: {said}\n")
    print(f"| starts at | seed | {' | '.join(ORDER)} | earlier tasks changed by |")
    print("|---|--:|" + "--:|" * (len(ORDER) + 1))
    for begin in options.begins:
        rows = []
        for seed in options.seeds:
            data = held_out(options.data, seed, folder) if options.validate else options.data
            tasks = sequence(data, options.first, options.second)
            right, free, changed = row(tasks, begin, seed, options.clients, options.rounds)
            rows.append(right)
            each = " | ".join(f"{100 * right[n]:.1f} ({100 * free[n]:.1f})" for n in ORDER)
            print(f"| {begin} | {seed} | {each} | {changed:g} |", flush=True)
        means = " | ".join(f"**{100 * fmean(one[n] for one in rows):.1f}**" for n in ORDER)
        print(f"| {begin} | mean | {means} | |", flush=True)


if __name__ == "__main__":
    in_one_line(main)
