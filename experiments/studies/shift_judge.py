"""How a client of the study answers, as the product's do: own statistics, label mix, own head."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any, cast

import torch
from torch import Tensor, nn

from client.kept import ENOUGH_LABELS, folds, own_statistics_help
from experiments.studies.shift_fleet import Share
from experiments.studies.shift_learners import Learner
from recast_core.heads import head_kind, right_answers
from recast_core.label_mix import counted_mix


@dataclass(frozen=True)
class Answers:
    """Fractions of right answers, of all clients.

    Attributes:
        plain: of the deployed classifier.
        mixed: of the same, whose logits count with the client's label mix.
        chosen: of that or a head of the client's own, as each has found better for itself.
    """

    plain: float
    mixed: float
    chosen: float


@torch.no_grad()
def answers(learner: Learner, shares: Sequence[Share], vectors: Sequence[Tensor]) -> Answers:
    """What all clients answer to their judging images, each with its vector of ``vectors``."""
    right, total = [0, 0, 0], 0
    for share, vector in zip(shares, vectors, strict=True):
        if not len(share.judge):
            continue
        tests, labels = seen(learner, share, share.judge, vector), share.judge_labels
        mix = _mix(learner, share.labels, tests) if len(share.labels) else None
        plain = right_answers(learner.head, tests, labels)
        mixed = chosen = right_answers(learner.head, tests, labels, mix)
        if share.own:
            chosen = right_answers(own_head(learner, share, vector), tests, labels)
        right = [a + b for a, b in zip(right, (plain, mixed, chosen), strict=True)]
        total += len(labels)
    return Answers(*(count / max(total, 1) for count in right))


def accuracy(
    learner: Learner, shares: Sequence[Share], vectors: Sequence[Tensor], *, frozen: bool = False
) -> float:
    """Right answers of the deployed classifier alone; ``frozen`` statistics or not."""
    if frozen:
        shares = [replace(share, local=False) for share in shares]
    shares = [replace(share, own=False) for share in shares]
    return answers(learner, shares, vectors).plain


@torch.no_grad()
def local_heads(learner: Learner, shares: Sequence[Share]) -> float:
    """Right answers of heads that clients fit at the start, where they have two classes or more."""
    right = total = 0
    start = learner.start.initial_vector
    for share in shares:
        tests = seen(learner, share, share.judge, start)
        head = learner.head
        if len(share.labels.unique()) > 1:
            head = own_head(learner, share, start)
        right += right_answers(head, tests, share.judge_labels)
        total += len(share.judge)
    return right / max(total, 1)


def own_head(learner: Learner, share: Share, vector: Tensor) -> nn.Module:
    """A ridge head of the client's labelled images."""
    features = seen(learner, share, share.learn, vector)
    labels = share.labels.to(features.device)
    return head_kind("local").fit(features, labels, _classes(learner, features))


def with_own_heads(learner: Learner, shares: Sequence[Share]) -> list[Share]:
    """Who answers with a head of its own: the client's own rule, by the start's features."""
    return [replace(share, own=own_is_better(learner, share)) for share in shares]


@torch.no_grad()
def own_is_better(learner: Learner, share: Share, *, mixed: bool = True) -> bool:
    """Whether a ridge head is right more often than the classifier in five folds, at the start.

    Args:
        learner: with the deployed classifier.
        share: of the client.
        mixed: the classifier's logits count with the label mix.
    """
    labels = share.labels
    if len(labels) < ENOUGH_LABELS or len(labels.unique()) < 2:
        return False
    features = seen(learner, share, share.learn, learner.start.initial_vector)
    labels = labels.to(features.device)
    own = stays = 0
    for learn, judge in folds(labels):
        told = labels[learn]
        head = head_kind("local").fit(features[learn], told, _classes(learner, features))
        own += right_answers(head, features[judge], labels[judge])
        mix = _mix(learner, told, features) if mixed else None
        stays += right_answers(learner.head, features[judge], labels[judge], mix)
    return own > stays


def seen(learner: Learner, share: Share, rows: Tensor, vector: Tensor) -> Tensor:
    """Features ``[N, d]`` of rows, with the client's own statistics where it takes them."""
    return learner.features(rows, vector, share.every if share.local else None)


def _mix(learner: Learner, labels: Tensor, features: Tensor) -> Tensor:
    return counted_mix(labels, _classes(learner, features))


def _classes(learner: Learner, features: Tensor) -> int:
    return int(learner.head(features[:1]).shape[1])


def with_statistics(learner: Learner, shares: Sequence[Share]) -> list[Share]:
    """Who normalises by its own images: the client's own rule, asked of each."""
    return [replace(share, local=_helped(learner, share)) for share in shares]


@torch.no_grad()
def _helped(learner: Learner, share: Share) -> bool:
    if not learner.by_images:
        return False
    every = share.every
    labelled = torch.arange(len(every)) < len(share.learn)
    me: Any = SimpleNamespace(settings=SimpleNamespace(recomputes=True), notes={})
    data: Any = SimpleNamespace(labelled=labelled, labels=share.labels, origin="")
    task: Any = SimpleNamespace(id=1, name="")
    turn = own_statistics_help(me, cast(Any, learner), data, task)
    start = learner.start.initial_vector
    try:
        guess: Any = next(turn)
        while True:
            by = None if guess.by is None else every[guess.by]
            features = learner.features(every[guess.wanted], start, by)
            guess = turn.send(learner.head(features).cpu())
    except StopIteration as end:
        return bool(end.value)
