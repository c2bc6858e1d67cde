"""What answers where a classifier is kept: it, with a label mix or without, or a ridge head.

``python -m experiments.studies.answers`` has the default network and bank learn shifts that the
default run does not have, judges clients by a fifth of their training images, and prints accuracies
of each answer: at the start, with coefficients learned together at the bank's own rate, and with
those that each client learned alone, without a byte, in the same passes at parts of that rate.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from statistics import fmean

import torch
from torch import Tensor

from client.data import parse_tasks
from experiments.studies.one_line import in_one_line
from experiments.studies.one_round_fleet import Fleet
from experiments.studies.shift_fleet import Share
from experiments.studies.shift_judge import own_head, own_is_better, seen
from experiments.studies.shift_rounds import Terms, federate
from recast_core.errors import RecastError
from recast_core.heads import right_answers
from recast_core.label_mix import counted_mix

TASKS = "gblur=digits[50%:]+gblur:5 rain=digits[50%:]+rain:5 both=digits[50%:]+gblur:4+gauss:4"
ANSWERS = ("classifier", "with label mix", "own head", "either", "either, with label mix")
ALONE = (0.25, 0.5, 1.0)
_ROUNDS, _PASSES = 6, 24


@torch.no_grad()
def answers(
    fleet: Fleet, shares: Sequence[Share], vectors: Sequence[Tensor], own: Sequence[Sequence[bool]]
) -> list[float]:
    """The fraction of right answers of each of ``ANSWERS``.

    Args:
        fleet: the network and the images.
        shares: of the clients.
        vectors: of each, float32 ``[D]``.
        own: whether each answers with a ridge head, without the label mix and with it.
    """
    right, examples = [0] * len(ANSWERS), 0
    for place, (share, vector) in enumerate(zip(shares, vectors, strict=True)):
        tests, labels = seen(fleet.learner, share, share.judge, vector), share.judge_labels
        mix = counted_mix(share.labels, fleet.domain.classes)
        stays = [right_answers(fleet.learner.head, tests, labels, one) for one in (None, mix)]
        fitted = stays[0]
        if len(share.labels.unique()) > 1:
            fitted = right_answers(own_head(fleet.learner, share, vector), tests, labels)
        either = [fitted if own[way][place] else stays[way] for way in (0, 1)]
        for index, count in enumerate((*stays, fitted, *either)):
            right[index] += count
        examples += len(labels)
    return [count / examples for count in right]


def rows_of(
    fleet: Fleet, clients: int, seed: int, alone: Sequence[float]
) -> dict[str, list[float]]:
    """The answers at the start, with what was learned together, and alone.

    Args:
        fleet: the network and the images.
        clients: how many, of which those count that are judged by something.
        seed: of who has what, and of the learning.
        alone: parts of the bank's own rate, one row each.

    Raises:
        RecastError: a bank that does not say its rate.
    """
    shares = [s for s in fleet.shares(clients, seed, validate=True) if len(s.judge)]
    learner, start = fleet.learner, fleet.learner.start.initial_vector
    rate = learner.start.customary_rate
    if rate is None:
        raise RecastError("the bank does not say its learning rate: make it with recast bank")
    own = [[own_is_better(learner, share, mixed=way) for share in shares] for way in (False, True)]
    terms = Terms(_ROUNDS, _PASSES // _ROUNDS, 32, rate, bits=4)
    every = {
        "nothing": [start] * len(shares),
        "together": federate(learner, shares, terms, seed).vectors,
    }
    for part in alone:
        by_itself = replace(terms, rate=part * rate, alone=True)
        found = [federate(learner, [one], by_itself, seed).vectors[0] for one in shares]
        every[f"alone at {part * rate:g}"] = found
    return {name: answers(fleet, shares, vectors, own) for name, vectors in every.items()}


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments.studies.answers", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--tasks", default=TASKS)
    parser.add_argument("--clients", type=int, default=20)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument(
        "--alone", type=float, nargs="+", default=ALONE, help="parts of the bank's own rate"
    )
    options = parser.parse_args(arguments)
    found: dict[str, list[list[float]]] = {}
    print(f"| task | seed | learned | {' | '.join(ANSWERS)} |")
    print("|---|--:|---|" + "--:|" * len(ANSWERS))
    for spec in parse_tasks(options.tasks):
        fleet = Fleet(str(spec))
        for seed in options.seeds:
            for name, each in rows_of(fleet, options.clients, seed, options.alone).items():
                found.setdefault(name, []).append(each)
                told = " | ".join(f"{100 * one:.1f}" for one in each)
                print(f"| {spec.name} | {seed} | {name} | {told} |", flush=True)
    for name, cells in found.items():
        means = " | ".join(f"{100 * fmean(column):.1f}" for column in zip(*cells, strict=True))
        print(f"| mean | | {name} | {means} |")


if __name__ == "__main__":
    in_one_line(main)
