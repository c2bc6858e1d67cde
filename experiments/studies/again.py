"""What starting at the nearest earlier task is worth: A, B, A again, A and B together.

``python -m experiments.studies.again`` learns four tasks one after another, once with every task
starting at the earlier one that fits its clients best (the default) and once all from the bank, and
prints accuracies after so many rounds, gains over nothing learned among them, and how much of what
earlier tasks predict has changed.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from statistics import fmean

from experiments.studies.trial import tasks_of, trial
from recast_core.setting_values import Value
from recast_core.settings import Settings

BEGINS = ("nearest", "bank")
ORDER = ("A", "B", "A-again", "A-and-B")


def sequence(data: str, first: str, second: str) -> str:
    """The four tasks in the task grammar, named as in ``ORDER``."""
    kinds = (first, second, first, f"{first}+{second}")
    return " ".join(f"{name}={data}+{kind}" for name, kind in zip(ORDER, kinds, strict=True))


def row(
    tasks: str, begin: str, seed: int, clients: int, rounds: int
) -> tuple[dict[str, float], dict[str, float], float]:
    """Accuracy of each task, of the best that sends nothing, and the change of earlier tasks."""
    values: dict[str, Value] = {
        "tasks": tasks, "begin": begin, "seed": seed, "rounds": rounds, "device": "cpu",
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
    options = parser.parse_args(arguments)
    tasks = sequence(options.data, options.first, options.second)
    print(f"{options.clients} clients, {options.rounds} rounds a task: {tasks}\n")
    print(f"| starts at | seed | {' | '.join(ORDER)} | earlier tasks changed by |")
    print("|---|--:|" + "--:|" * (len(ORDER) + 1))
    for begin in BEGINS:
        rows = []
        for seed in options.seeds:
            right, free, changed = row(tasks, begin, seed, options.clients, options.rounds)
            rows.append(right)
            each = " | ".join(f"{100 * right[n]:.1f} ({100 * free[n]:.1f})" for n in ORDER)
            print(f"| {begin} | {seed} | {each} | {changed:g} |", flush=True)
        means = " | ".join(f"**{100 * fmean(one[n] for one in rows):.1f}**" for n in ORDER)
        print(f"| {begin} | mean | {means} | |", flush=True)


if __name__ == "__main__":
    main()
