"""What differential privacy of each client costs, and what an update tells of its client.

    python -m experiments.studies.privacy [--quick]

A thousand light clients meet a domain that the packaged classifier of digits has not seen. Three
methods learn it with and without a budget; a shift bank's 48 numbers have little room for noise.
The second part attacks single updates: `experiments.studies.update_attacks`.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import numpy as np
import torch

from client.data import load_dataset, parse_task
from client.learners import preprocess_of
from experiments.studies.one_line import in_one_line
from experiments.studies.trial import trial
from experiments.studies.update_attacks import Images, attack
from recast_core.privacy.accountant import Accountant, Sampling
from recast_core.settings import Settings
from recast_core.shifts.apply import shift

SHIFT, SEVERITY = "impulse", 4
# Digits that the packaged classifier was not trained on.
DIGITS = "digits[50%:]"
# Rates that learn most with a step a round and without a budget: of 0.2 and 0.4, else of 1e-2, 3e-2
# and 1e-1. Where none is named it is the customary one.
RATES = {"recast": 0.4, "lora:1": 3e-2, "norm-affine": 1e-2}
# Images that the attacks are made on.
MOST = 2000
ATTACKS = ("labels", "took part", "image")


@dataclass(frozen=True)
class Scale:
    """How much is done.

    Attributes:
        clients: in the federation.
        images: of a client, on average.
        tests: draws of the noise on the test digits.
        rounds: of the task.
        seeds: one run each.
        methods: that learn it.
        known: clients whose images an attacker has.
        victims: clients that are attacked.
        kind: who adds the noise; ``distributed`` in hidden sums.
    """

    clients: int = 1000
    images: int = 4
    tests: int = 2
    rounds: int = 4
    seeds: tuple[int, ...] = (0, 1, 2)
    methods: tuple[str, ...] = ("recast", "lora:1", "norm-affine")
    known: int = 240
    victims: int = 40
    kind: str = "central"


QUICK = Scale(
    clients=24,
    images=8,
    tests=1,
    rounds=2,
    seeds=(0,),
    methods=("recast",),
    known=12,
    victims=3,
)


def make_domain(path: Path, scale: Scale) -> None:
    """Write the images of the domain: digits under noise, drawn anew for each copy of one."""
    digits = load_dataset(parse_task(DIGITS), preprocess_of(Settings().backbone).size)
    copies = -(-scale.clients * scale.images // len(digits.y_train))
    arrays: dict[str, Any] = {}
    for part, x, y, draws in (
        ("train", digits.x_train, digits.y_train, copies),
        ("test", digits.x_test, digits.y_test, scale.tests),
    ):
        images = np.concatenate([x] * draws)
        planes = torch.from_numpy(images if images.ndim == 4 else images[..., None])
        seeds = torch.arange(len(images)) + (1 << 20) * (part == "test")
        made = shift(planes.permute(0, 3, 1, 2).contiguous(), SHIFT, SEVERITY, seeds)
        shifted = made.permute(0, 2, 3, 1).numpy()
        arrays[f"x_{part}"] = shifted if images.ndim == 4 else shifted[..., 0]
        arrays[f"y_{part}"] = np.concatenate([y] * draws)
    np.savez(path, classes=np.array(digits.classes), **arrays)


def settings_of(path: Path, method: str, scale: Scale, seed: int, epsilon: float) -> Settings:
    """One run. Statistics stay frozen: no client has images enough for its own."""
    return Settings(
        tasks=f"{SHIFT}=npz:{path}",
        head="backbone",
        statistics="frozen",
        method=method,
        learning_rate=RATES.get(method, 0.0),
        rounds=scale.rounds,
        epochs=1,
        partition="dirichlet:1.0",
        seed=seed,
        dp_epsilon=epsilon,
        dp=scale.kind if epsilon else "central",
        secure_aggregation=scale.kind == "distributed",
    )


def utility(path: Path, scale: Scale, epsilons: Sequence[float]) -> list[dict[str, object]]:
    """Accuracy of each method at each budget, 0 for none."""
    rows = []
    for method in scale.methods:
        for epsilon in epsilons:
            found, numbers, began = [], 0, time.monotonic()
            for seed in scale.seeds:
                report = trial(settings_of(path, method, scale, seed, epsilon), scale.clients)
                task = report["tasks"][0]
                found.append(100 * task["accuracy"])
                print(method, epsilon, seed, found[-1], flush=True)
                numbers = task["coefficients"]
                deployed = 100 * task["deployed_accuracy"]
                private = report.get("privacy")
            rows.append(
                {
                    "method": method,
                    "numbers": numbers,
                    "epsilon": private["epsilon"] if private else None,
                    "deployed": deployed,
                    "accuracy": fmean(found),
                    "spread": stdev(found) if len(found) > 1 else 0.0,
                    "seconds": (time.monotonic() - began) / len(found),
                }
            )
            print(rows[-1], flush=True)
    return rows


def attacks(path: Path, scale: Scale) -> list[dict[str, float | str]]:
    """What single updates tell: without noise, and with that of the budgets."""
    with np.load(path) as arrays:
        images, labels = arrays["x_train"][:MOST], arrays["y_train"][:MOST]
    data = Images(torch.from_numpy(images), torch.from_numpy(labels), len(np.unique(labels)))
    account = Accountant(Settings().dp_delta)
    plan: list[tuple[float, Sampling]] = [(1.0, "all")] * scale.rounds
    noises = {"no noise": 0.0}
    for kind, epsilon, moved in (("central", 1.0, 1), ("central", 8.0, 1), ("local", 8.0, 2)):
        noises[f"{kind}, epsilon {epsilon:g}"] = moved * account.noise_for(epsilon, [], plan)
    found = []
    for seed in scale.seeds:
        found += attack(
            data, noises, known=scale.known, victims=scale.victims, images=16, seed=seed
        )
    rows: list[dict[str, float | str]] = []
    for name in noises:
        same = [row for row in found if row["what"] == name]
        means = {key: fmean(float(row[key]) for row in same) for key in ATTACKS}
        rows.append({"what": name, "noise": noises[name], **means})
        print(rows[-1], flush=True)
    return rows


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the study and print its rows."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a few rows, as a test runs it")
    parser.add_argument("--epsilons", type=float, nargs="*", default=[0.0, 1.0], help="0 is none")
    parser.add_argument("--methods", nargs="*", help="in place of the usual ones")
    parser.add_argument("--clients", type=int, help="in place of the usual number")
    parser.add_argument("--dp", choices=("central", "local", "distributed"), default="central")
    parser.add_argument("--only", choices=("utility", "attacks"))
    options = parser.parse_args(arguments)
    scale = QUICK if options.quick else Scale()
    scale = replace(scale, kind=options.dp)
    if options.methods:
        scale = replace(scale, methods=tuple(options.methods))
    if options.clients:
        scale = replace(scale, clients=options.clients)
    with tempfile.TemporaryDirectory(prefix="recast-") as folder:
        path = Path(folder) / "domain.npz"
        make_domain(path, scale)
        if options.only != "attacks":
            utility(path, scale, options.epsilons)
        if options.only != "utility":
            attacks(path, scale)


if __name__ == "__main__":
    in_one_line(main)
