"""What one update of a shift bank tells of its client, with and without noise.

Three attacks on the numbers that one client sends in its first round. Whoever attacks a run with
central noise is granted everything but the noise: all other updates are known to them.

- Which labels has the client? A ridge regression from updates to label histograms, learned from
  other clients with images of their own.
- Did the client take part? The likelihood ratio of its own update, which the attacker knows.
- Was this image among the client's? By how much the update lowers its loss.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import cross_entropy

from client.learners import attached_to
from recast_core.bank import TemplateBank
from recast_core.learner import BankLearner
from recast_core.privacy.clipping import bounded, length
from recast_core.privacy.noise import seeded_noise
from recast_core.settings import Settings
from recast_core.wire.messages import Hyperparameters
from server.prepare import make_start

Double = NDArray[np.float64]
_RIDGE, _DRAWS = 0.1, 10


@dataclass(frozen=True, eq=False)
class Images:
    """Images of a domain: uint8 ``[N, ...]``, labels int64 ``[N]`` in ``classes``."""

    images: Tensor
    labels: Tensor
    classes: int


@dataclass(frozen=True, eq=False)
class Victim:
    """One client: its update ``[D]``, the rows of its images, and its share of each class."""

    update: Double
    rows: Tensor
    histogram: Double


def make_victims(
    model: BankLearner, data: Images, rows: Tensor, count: int, images: int, seed: int
) -> list[Victim]:
    """``count`` clients with ``images`` images each of ``rows``, their labels dealt unevenly."""
    random = np.random.default_rng([seed, 31])
    labels = data.labels[rows].numpy()
    start = model.start.initial_vector.numpy()
    rate = model.start.customary_rate
    assert rate is not None
    hyper = Hyperparameters(epochs=1, batch=32, learning_rate=rate, objective="cross-entropy")
    found = []
    for number in range(count):
        share = random.dirichlet(np.full(data.classes, 0.3))[labels]
        chosen = random.choice(len(rows), images, replace=False, p=share / share.sum())
        mine = rows[torch.from_numpy(chosen)]
        trained = model.fit(
            start, data.images[mine], data.labels[mine], data.classes, hyper, seed=number
        ).vector
        counts = np.bincount(data.labels[mine].numpy(), minlength=data.classes)
        found.append(Victim(np.asarray(trained - start, np.float64), mine, counts / images))
    return found


def seen(update: Double, clip: float, noise: float, seed: int) -> Double:
    """What an attacker sees of an update with noise of so many clips; all of it where 0."""
    if not noise:
        return update
    return bounded(update, clip) + noise * clip * seeded_noise(seed)(len(update))


def label_gain(
    known: Sequence[Victim], victims: Sequence[Victim], clip: float, noise: float, seed: int
) -> float:
    """How much of the error in label shares an update takes away: 0 is none, 1 is all.

    The error is the sum of absolute differences, over that of the usual shares. The attacker learns
    from other clients' updates under the same noise, drawn several times.

    Args:
        known: clients to learn from.
        victims: to be told of.
        clip: of the noise.
        noise: in clips.
        seed: of the noise.
    """
    draws = _DRAWS if noise else 1
    x = np.stack([seen(one.update, clip, noise, seed + 7919 * n + place)
                  for n in range(1, draws + 1) for place, one in enumerate(known)])  # fmt: skip
    y = np.stack([one.histogram for _ in range(draws) for one in known])
    usual, centre, scale = y.mean(0), x.mean(0), x.std(0) + 1e-12
    x = (x - centre) / scale
    gram = x.T @ x / len(x) + _RIDGE * np.eye(x.shape[1])
    weights = np.linalg.solve(gram, x.T @ (y - usual) / len(x))
    told = np.stack([seen(one.update, clip, noise, seed + n) for n, one in enumerate(victims)])
    guess = np.clip((told - centre) / scale @ weights + usual, 0, None)
    guess /= guess.sum(1, keepdims=True) + 1e-12
    truth = np.stack([one.histogram for one in victims])
    wrong = np.abs(guess - truth).sum(1).mean()
    return float(1 - wrong / np.abs(usual - truth).sum(1).mean())


def presence(victims: Sequence[Victim], clip: float, noise: float) -> float:
    """Area under the curve of telling who took part: 0.5 is chance, 1 is certainty."""
    if not noise:
        return 1.0
    inside, outside = [], []
    for number, one in enumerate(victims):
        own = bounded(one.update, clip)
        for seed in range(20):
            drawn = noise * clip * seeded_noise(number, seed, 1)(len(own))
            inside.append(float((own + drawn) @ own))
            other = noise * clip * seeded_noise(number, seed, 2)(len(own))
            outside.append(float(other @ own))
    return area(np.array(inside), np.array(outside))


@torch.no_grad()
def losses(model: BankLearner, data: Images, rows: Tensor, vector: Double) -> Double:
    """The loss of each image under a vector."""
    features = model.features(data.images[rows], vector.astype(np.float32))
    found = cross_entropy(model.head(features), data.labels[rows], reduction="none")
    return np.asarray(found.cpu().double())


def image_membership(
    model: BankLearner, data: Images, victims: Sequence[Victim], view: list[Double], seed: int
) -> float:
    """Area under the curve of telling a client's images from others of the same labels."""
    random, start = np.random.default_rng([seed, 37]), model.start.initial_vector.double().numpy()
    members, others = [], []
    for one, told in zip(victims, view, strict=True):
        own = set(one.rows.tolist())
        twins = []
        for label in data.labels[one.rows].tolist():
            free = [r for r in torch.nonzero(data.labels == label)[:, 0].tolist() if r not in own]
            twins.append(int(random.choice(free)))
        rows = torch.cat([one.rows, torch.tensor(twins)])
        gained = losses(model, data, rows, start) - losses(model, data, rows, start + told)
        members.append(gained[: len(one.rows)])
        others.append(gained[len(one.rows) :])
    return area(np.concatenate(members), np.concatenate(others))


def area(inside: Double, outside: Double) -> float:
    """The probability that one of ``inside`` is above one of ``outside``; ties count half."""
    apart = inside[:, None] - outside[None]
    return float((apart > 0).mean() + (apart == 0).mean() / 2)


def attack(
    data: Images, noises: dict[str, float], *, known: int, victims: int, images: int, seed: int
) -> list[dict[str, float | str]]:
    """Every attack at every noise, which is in clips; a row for each.

    Args:
        data: half of it belongs to the clients that the attacker knows.
        noises: by the name of what has it.
        known: how many of these.
        victims: how many others.
        images: of each client.
        seed: of who has what, and of the noise.
    """
    settings = Settings(head="backbone", statistics="frozen", tasks="a=digits")
    start = make_start(settings)
    assert isinstance(start, TemplateBank)
    model = BankLearner(*attached_to(settings, start))
    order = torch.randperm(len(data.labels), generator=torch.Generator().manual_seed(seed))
    half = len(order) // 2
    teachers = make_victims(model, data, order[:half], known, images, seed)
    targets = make_victims(model, data, order[half:], victims, images, seed + 1)
    clip = float(np.median([length(one.update) for one in teachers]))
    rows: list[dict[str, float | str]] = []
    for name, noise in noises.items():
        view = [seen(one.update, clip, noise, seed + place) for place, one in enumerate(targets)]
        rows.append(
            {
                "what": name,
                "noise": noise,
                "labels": label_gain(teachers, targets, clip, noise, seed),
                "took part": presence(targets, clip, noise),
                "image": image_membership(model, data, targets, view, seed),
            }
        )
    return rows


def chance_of_presence(noise: float) -> float:
    """What theory gives for an update as long as the clip."""
    return 0.5 * (1 + math.erf(1 / (2 * noise))) if noise else 1.0
