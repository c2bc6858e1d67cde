"""One federated Gauss-Newton round against many averaged ones, at the bytes that each takes.

``python -m experiments.studies.one_round`` has the default network and bank learn the default run's
shifts. A client sends, in place of an update, the gradient and the Gauss-Newton matrix of its own
images' cross-entropy in the D coefficients, D (D + 3) / 2 numbers; the server adds them up, damps
the diagonal and solves. Beside it: the product's rounds; these and then each client's own last
step, which is not sent; and training alone. Damping is chosen by validation images.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean

import numpy as np
import torch
from torch import Tensor
from torch.func import functional_call, jvp

from client.data import load_dataset, parse_tasks
from experiments.studies.shift_fleet import Domain, Share, deal
from experiments.studies.shift_learners import FoldedLearner
from experiments.studies.shift_rounds import Terms, accuracy, federate, with_statistics
from recast_core.backbones import Backbone, load_backbone
from recast_core.banks import load_bank
from recast_core.files import write_atomically
from recast_core.folded import split_model
from recast_core.model import attach
from recast_core.recipe import Recipe
from recast_core.settings import Settings
from recast_core.statistics import own_statistics
from recast_core.wire.codec import decode, encode
from recast_core.wire.messages import to_update

DAMPINGS = (0.1, 0.3, 1.0, 3.0, 10.0)
_RATE, _VALIDATION_SEED = 0.2, 1_009
_NAME = "digits_resnet20"


@dataclass(frozen=True, eq=False)
class Normal:
    """One client's part of the normal equations, in sums over its images.

    Attributes:
        gradient: of the cross-entropy, float64 ``[D]``.
        matrix: ``J^T (diag(p) - p p^T) J``, float64 ``[D, D]``.
        examples: how many images.
    """

    gradient: Tensor
    matrix: Tensor
    examples: int


class Fleet:
    """The default network with its bank, and clients under one shift."""

    def __init__(self, task: str) -> None:
        self.loaded: Backbone = load_backbone(_NAME)
        self.net = attach(self.loaded.model, load_bank(_NAME), self.loaded.head)
        self.net.statistics = own_statistics(self.net.backbone)
        preprocess = self.loaded.preprocess
        split = split_model(self.net, preprocess.size, preprocess.channels)
        self.learner = FoldedLearner(split, preprocess, half=False)
        [spec] = parse_tasks(task)
        data = load_dataset(spec, preprocess.size)
        self.images = torch.from_numpy(np.concatenate([data.x_train, data.x_test]))
        planes = self.images.unsqueeze(-1) if self.images.dim() == 3 else self.images
        self.domain = Domain(planes, data.y_train, data.y_test, len(data.classes))
        self.learner.hold(self.domain)

    def shares(self, clients: int, seed: int, *, validate: bool) -> list[Share]:
        """Who has which images."""
        dealt = deal(self.domain, clients, 0.5, seed, -1, validate=validate)
        return with_statistics(self.learner, dealt)

    def normal(self, share: Share, vector: Tensor) -> Normal:
        """The client's sums at ``vector``, one forward-mode pass for each coefficient."""
        x = self.loaded.preprocess(self.images[share.learn])
        labels = share.labels
        statistics = self.net.statistics
        counted = torch.ones(len(x)) if share.local else None
        assert statistics is not None

        def logits(flat: Tensor) -> Tensor:
            with statistics.of(counted):
                found: Tensor = functional_call(self.net, {"coefficients.flat": flat}, (x,))
            return found

        axes = torch.eye(len(vector))
        jacobian = torch.stack([jvp(logits, (vector,), (axis,))[1] for axis in axes], -1).double()
        p = logits(vector).detach().double().softmax(1)
        residual = p.clone()
        residual[torch.arange(len(p)), labels] -= 1
        centred = jacobian - (p.unsqueeze(-1) * jacobian).sum(1, keepdim=True)
        matrix = torch.einsum("nc,ncd,nce->de", p, centred, centred)
        return Normal(torch.einsum("nc,ncd->d", residual, jacobian), matrix, len(x))


def rounded(normal: Normal, bits: int) -> tuple[Normal, int]:
    """As it arrives in so many bits a number, and its payload in bytes with two scales."""
    count = len(normal.gradient)
    rows, columns = torch.triu_indices(count, count).unbind()
    sent, size = [], 0
    for part in (normal.gradient, normal.matrix[rows, columns]):
        encoded = encode(part.float().numpy(), bits)
        sent.append(torch.from_numpy(decode(encoded, part.numel(), bits)).double())
        size += len(encoded.data) + 4
    matrix = torch.zeros_like(normal.matrix)
    matrix[rows, columns] = sent[1]
    matrix[columns, rows] = sent[1]
    return Normal(sent[0], matrix, normal.examples), size


def step(normals: Sequence[Normal], damping: float) -> Tensor:
    """``-(H + lambda mean(diag H) I)^-1 g`` of the sums: float32 ``[D]``."""
    gradient = sum((n.gradient for n in normals), torch.zeros(()))
    matrix = sum((n.matrix for n in normals), torch.zeros(()))
    ridge = damping * matrix.diagonal().mean() * torch.eye(len(gradient), dtype=torch.float64)
    moved: Tensor = -torch.linalg.solve(matrix + ridge, gradient)
    return moved.float()


def newton(
    fleet: Fleet, shares: Sequence[Share], rounds: int, bits: int, damping: float
) -> tuple[Tensor, int]:
    """The vector after so many rounds, and the bytes that a client sent."""
    vector, sent = fleet.learner.start.initial_vector, 0
    for _ in range(rounds):
        told = [rounded(fleet.normal(share, vector), bits) for share in shares]
        sent += max(size for _, size in told)
        vector = vector + step([normal for normal, _ in told], damping)
    return vector, sent


def personalised(fleet: Fleet, shares: Sequence[Share], vector: Tensor) -> list[Tensor]:
    """Each client's own last step from the common vector, which it keeps."""
    own = []
    for place, share in enumerate(shares):
        recipe = Recipe(4, 32, _RATE / 4, objective="cross-entropy")
        own += fleet.learner.train([share], recipe, [vector], [place])
    return own


def rows_of(
    fleet: Fleet, shares: Sequence[Share], damping: float, seed: int
) -> list[tuple[str, int, float]]:
    """Name, bytes that a client sends for the task, and accuracy of each row."""
    learner = fleet.learner
    start = learner.start.initial_vector

    def same(vector: Tensor) -> list[Tensor]:
        return [vector] * len(shares)

    found = [
        ("as deployed", 0, accuracy(learner, shares, same(start), frozen=True)),
        ("statistics", 0, accuracy(learner, shares, same(start))),
    ]
    terms = Terms(6, 4, 32, _RATE, bits=4)
    lone = federate(learner, shares, replace(terms, alone=True, rounds=1, epochs=24), seed)
    found.append(("alone, coefficients", 0, accuracy(learner, shares, lone.vectors)))
    for rounds in (1, 2, 6):
        made = federate(learner, shares, replace(terms, rounds=rounds), seed)
        found.append((f"{rounds} averaged", made.up, accuracy(learner, shares, made.vectors)))
    own = personalised(fleet, shares, made.vectors[0])
    found.append(("6 averaged, own last step", made.up, accuracy(learner, shares, own)))
    for rounds, bits in ((1, 8), (1, 16), (2, 8), (2, 16)):
        vector, payload = newton(fleet, shares, rounds, bits, damping)
        frame = to_update(learner.start, 1, 1, 100, start.numpy(), 8).ByteSize() - len(start)
        sent = payload + rounds * frame
        name = f"{rounds} Gauss-Newton, {bits} bits"
        found.append((name, sent, accuracy(learner, shares, same(vector))))
    return found


def best_damping(fleet: Fleet, clients: int) -> float:
    """The damping whose one round does best on validation images."""
    shares = fleet.shares(clients, _VALIDATION_SEED, validate=True)
    tried = {}
    for damping in DAMPINGS:
        vector, _ = newton(fleet, shares, 1, 16, damping)
        tried[damping] = accuracy(fleet.learner, shares, [vector] * len(shares))
    return max(DAMPINGS, key=lambda damping: tried[damping])


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments.studies.one_round", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--tasks", default=Settings().tasks)
    parser.add_argument("--clients", type=int, default=20)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--json", type=Path)
    options = parser.parse_args(arguments)
    found: dict[str, dict[str, list[float]]] = {}
    sizes: dict[str, list[int]] = {}
    specs = [str(spec) for spec in parse_tasks(options.tasks)]
    for task in specs:
        fleet = Fleet(task)
        damping = best_damping(fleet, options.clients)
        for seed in options.seeds:
            shares = fleet.shares(options.clients, seed, validate=False)
            for name, sent, right in rows_of(fleet, shares, damping, seed):
                found.setdefault(name, {}).setdefault(task, []).append(right)
                sizes.setdefault(name, []).append(sent)
            print(f"{task}, seed {seed}, damping {damping}", flush=True)
    names = [spec.name for spec in parse_tasks(options.tasks)]
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
        content = {"accuracy": found, "bytes": sizes}
        write_atomically(options.json, (json.dumps(content, indent=1) + "\n").encode())


if __name__ == "__main__":
    main()
