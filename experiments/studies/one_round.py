"""One federated Gauss-Newton round against many averaged ones, at the bytes that each takes.

``python -m experiments.studies.one_round`` has the default network and bank learn the default run's
shifts; ``--new-classes`` a network that has seen letters, with a bank of its own weights, learn
digits. A client sends, in place of an update, the gradient and the Gauss-Newton matrix of its own
images' loss in the D coefficients, D (D + 3) / 2 numbers; the server adds them up, damps the
diagonal and solves. Beside it: averaged rounds, few and as many as take these bytes; these and then
each client's own last step, which is not sent; and training alone. Damping, and the rates of new
classes, are chosen by validation images.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean

from torch import Tensor

from experiments.studies.normal_sums import Normal, rounded, step
from experiments.studies.one_line import in_one_line
from experiments.studies.one_round_fleet import Fleet, NewClasses
from experiments.studies.shift_fleet import Share
from experiments.studies.shift_rounds import Terms, federate
from experiments.studies.tasks_data import materialised
from recast_core.files import write_atomically
from recast_core.recipe import Recipe
from recast_core.settings import Settings
from recast_core.task_spec import parse_tasks
from recast_core.wire.messages import to_update

DAMPINGS = (0.1, 0.3, 1.0, 3.0, 10.0)
FACTORS = (1.0, 0.3, 3.0)
ROUNDS, PASSES = 6, 4
NEW_CLASSES = "digits+inverted digits+fog:5 digits+impulse:4"
_VALIDATION_SEED = 1_009


@dataclass(frozen=True)
class Tuned:
    """What validation images chose.

    Attributes:
        damping: of Gauss-Newton steps.
        together: rate of averaged rounds.
        alone: rate of training alone.
    """

    damping: float
    together: float
    alone: float


def normals_of(fleet: Fleet, shares: Sequence[Share], vector: Tensor) -> list[Normal]:
    """Every client's sums."""
    return [fleet.normal(share, vector) for share in shares]


def newton(
    fleet: Fleet,
    shares: Sequence[Share],
    first: Sequence[Normal],
    rounds: int,
    bits: int,
    damping: float,
) -> tuple[Tensor, int]:
    """The vector after so many rounds, and the bytes that a client sent; ``first`` at the start."""
    vector, sent, normals = fleet.learner.start.initial_vector, 0, list(first)
    for round_ in range(rounds):
        told = [rounded(normal, bits) for normal in normals]
        sent += max(size for _, size in told) + _frame(fleet)
        vector = vector + step([normal for normal, _ in told], damping)
        if round_ + 1 < rounds:
            normals = normals_of(fleet, shares, vector)
    return vector, sent


def _frame(fleet: Fleet) -> int:
    """What an update has beside its numbers and their scale, in bytes."""
    start = fleet.learner.start
    return to_update(start, 1, 1, 100, start.initial_vector.numpy(), 8).ByteSize() - start.sent


def personalised(
    fleet: Fleet, shares: Sequence[Share], vector: Tensor, terms: Terms
) -> list[Tensor]:
    """Each client's own last step from the common vector, which it keeps."""
    recipe = Recipe(PASSES, terms.batch, terms.rate / 4, objective=terms.objective)
    own = []
    for place, share in enumerate(shares):
        own += fleet.learner.train([share], recipe, [vector], [place])
    return own


def alone(fleet: Fleet, shares: Sequence[Share], terms: Terms, rate: float) -> list[Tensor]:
    """What each client learns in as many passes as all rounds have, at once."""
    start = fleet.learner.start.initial_vector
    recipe = Recipe(ROUNDS * PASSES, terms.batch, rate, objective=terms.objective)
    places = list(range(len(shares)))
    return list(fleet.learner.train(shares, recipe, [start] * len(shares), places))


def rows_of(
    fleet: Fleet, shares: Sequence[Share], terms: Terms, tuned: Tuned, seed: int
) -> list[tuple[str, int, float]]:
    """Name, bytes that a client sends for the task, and accuracy of each row."""
    learner = fleet.learner
    start = learner.start.initial_vector

    def same(vector: Tensor) -> list[Tensor]:
        return [vector] * len(shares)

    found = [("nothing learned", 0, fleet.accuracy(shares, same(start)))]
    if fleet.objective == "cross-entropy":
        found.insert(0, ("as deployed", 0, fleet.accuracy(shares, same(start), frozen=True)))
    own = alone(fleet, shares, terms, tuned.alone)
    found.append(("alone", 0, fleet.accuracy(shares, own)))
    first = normals_of(fleet, shares, start)
    terms = replace(terms, rate=tuned.together)
    for rounds in (1, 2, ROUNDS):
        made = federate(learner, shares, replace(terms, rounds=rounds), seed)
        name = f"{rounds} averaged, {PASSES} passes each"
        found.append((name, made.up, fleet.accuracy(shares, made.vectors)))
    own = personalised(fleet, shares, made.vectors[0], terms)
    found.append((f"{ROUNDS} averaged, own last step", made.up, fleet.accuracy(shares, own)))
    for rounds, bits in ((1, 8), (1, 16), (2, 16)):
        vector, sent = newton(fleet, shares, first, rounds, bits, tuned.damping)
        name = f"{rounds} Gauss-Newton, {bits} bits"
        found.append((name, sent, fleet.accuracy(shares, same(vector))))
        if bits == 8:
            many = replace(terms, rounds=sent // made.update_bytes, epochs=1)
            made = federate(learner, shares, many, seed)
            name = f"{many.rounds} averaged, 1 pass each"
            found.append((name, made.up, fleet.accuracy(shares, made.vectors)))
    return found


def tune(fleet: Fleet, terms: Terms, clients: int, *, rates: bool) -> Tuned:
    """The damping of one round, and with ``rates`` those, that do best on validation images."""
    shares = fleet.shares(clients, _VALIDATION_SEED, validate=True)
    first = normals_of(fleet, shares, fleet.learner.start.initial_vector)

    def damped(damping: float) -> float:
        vector, _ = newton(fleet, shares, first, 1, 16, damping)
        return fleet.accuracy(shares, [vector] * len(shares))

    def together(rate: float) -> float:
        made = federate(fleet.learner, shares, replace(terms, rate=rate), _VALIDATION_SEED)
        return fleet.accuracy(shares, made.vectors)

    def apart(rate: float) -> float:
        return fleet.accuracy(shares, alone(fleet, shares, terms, rate))

    tried = [factor * terms.rate for factor in FACTORS]
    best = max(DAMPINGS, key=damped)
    if not rates:
        return Tuned(best, terms.rate, terms.rate / 2)
    return Tuned(best, max(tried, key=together), max(tried, key=apart))


def study(
    specs: Sequence[str], options: argparse.Namespace
) -> tuple[dict[str, dict[str, list[float]]], dict[str, list[int]]]:
    """Accuracies by row and task, and bytes by row."""
    found: dict[str, dict[str, list[float]]] = {}
    sizes: dict[str, list[int]] = {}
    kind = NewClasses if options.new_classes else Fleet
    terms = Terms(ROUNDS, PASSES, 32, 0.2, bits=4, objective=kind.objective)
    if options.new_classes:
        terms = replace(terms, batch=16, rate=0.02, bits=8)
    for task in specs:
        fleet = kind(task)
        tuned = tune(fleet, terms, options.clients, rates=options.new_classes)
        for seed in options.seeds:
            shares = fleet.shares(options.clients, seed, validate=False)
            for name, sent, right in rows_of(fleet, shares, terms, tuned, seed):
                found.setdefault(name, {}).setdefault(task, []).append(right)
                sizes.setdefault(name, []).append(sent)
            print(f"{parse_tasks(task)[0].name}, seed {seed}: {tuned}", flush=True)
    return found, sizes


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments.studies.one_round", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--new-classes", action="store_true", help="own weights and local heads")
    parser.add_argument("--tasks", help="others than the default run's, or than three of digits")
    parser.add_argument("--clients", type=int, help="20; 10 of new classes")
    parser.add_argument("--images", type=int, default=400, help="of a task of new classes")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--json", type=Path)
    options = parser.parse_args(arguments)
    options.clients = options.clients or (10 if options.new_classes else 20)
    options.tasks = options.tasks or (NEW_CLASSES if options.new_classes else Settings().tasks)
    specs = [str(spec) for spec in parse_tasks(options.tasks)]
    names = [spec.name for spec in parse_tasks(options.tasks)]
    with tempfile.TemporaryDirectory(prefix="recast-") as folder:
        if options.new_classes:
            specs = [
                materialised(spec, 32, options.images, Path(folder), validate=False)
                for spec in specs
            ]
        found, sizes = study(specs, options)
    print(f"| | sent by a client, whole task | {' | '.join(names)} | mean | seeds |")
    print("|---|--:|" + "--:|" * (len(names) + 2))
    for name, by in found.items():
        each = " | ".join(f"{100 * fmean(by[task]):.1f}" for task in specs)
        seeds = [fmean(values) for values in zip(*by.values(), strict=True)]
        print(
            f"| {name} | {fmean(sizes[name]):,.0f} B | {each} | {100 * fmean(seeds):.1f} "
            f"| {100 * min(seeds):.1f}-{100 * max(seeds):.1f} |"
        )
    if options.json:
        accuracy = {name: dict(zip(names, by.values(), strict=True)) for name, by in found.items()}
        content = {"accuracy": accuracy, "bytes": sizes}
        write_atomically(options.json, (json.dumps(content, indent=1) + "\n").encode())


if __name__ == "__main__":
    in_one_line(main)
