"""What a client decides where the deployed classifier stays: its statistics, and what to trust."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from client.holdings import D, Holdings, M, all_labels
from client.turn import Exam, Guess, Look, Work
from protos import recast_v1_pb2 as pb
from recast_core.errors import RecastError
from recast_core.heads import head_kind, right_answers
from recast_core.objectives import collapsed, outputs_of
from recast_core.statistics import spread_choice
from recast_core.wire.codec import Vector

# With fewer labels their accuracy says too little, and the predictions' own sureness is asked.
ENOUGH_LABELS = 16
# So many images say which earlier task is nearest.
FEW = 64
# Of the labelled images, to see whether a head of the client's own would be better.
FOLDS = 5


def check_classes(model: M, data: D) -> None:
    """Refuse a task over other classes than the deployed classifier's.

    Raises:
        RecastError: another number of classes.
    """
    outputs = outputs_of(model.head)
    if outputs is not None and outputs != data.classes:
        raise RecastError(
            f"the task has {data.classes} classes and the deployed classifier {outputs}: give the "
            "classes that it knows, or use another head"
        )


def own_statistics_help(
    me: Holdings[M, D], model: M, data: D, task: pb.Task
) -> Generator[Work[M, D], Any, bool]:
    """Whether BatchNorms had better use this client's own images, with the start's vector.

    Each half of the images is predicted with the statistics of the other half. Where enough have a
    label, that must make more of them right than the frozen statistics do; else it must make
    predictions surer on average. The answer depends on the images and the deployed network alone,
    so it is found once.
    """
    if not me.settings.recomputes:
        return False
    name = f"{task.id} {task.name} {model.start.prefix:08x}"
    if name not in me.notes:
        chosen = spread_choice(len(data.labelled))
        # Of every two neighbours one: images often lie sorted by class.
        halves = chosen[::2], chosen[1::2]
        frozen: Tensor = yield Guess(model, data, None, torch.cat(halves), None)
        if len(halves[1]):
            first = yield Guess(model, data, None, halves[0], halves[1])
            second = yield Guess(model, data, None, halves[1], halves[0])
            own = torch.cat([first, second])
            me.notes[name] = _better(frozen, own, all_labels(data)[torch.cat(halves)])
        else:
            me.notes[name] = False
    return me.notes[name]


def nearest(
    model: M, data: D, vectors: Mapping[int, Vector], local: bool
) -> Generator[Work[M, D], Any, int]:
    """Which of several vectors fits a few of this client's images best.

    The loss decides where images have labels, else how sure the predictions are. Of equals the
    first is taken.

    Args:
        model: with the deployed classifier.
        data: of the client.
        vectors: float32 ``[D]`` each, by a number.
        local: whether BatchNorms use this client's own images.
    """
    labels = all_labels(data)
    known = (labels >= 0).nonzero().squeeze(1)
    every = spread_choice(len(labels))
    few = known[spread_choice(len(known), FEW)] if len(known) else spread_choice(len(labels), FEW)
    losses = {}
    for number, vector in vectors.items():
        logits: Tensor = yield Guess(model, data, vector, few, every if local else None)
        if len(known):
            losses[number] = float(F.cross_entropy(logits.float(), labels[few]))
        else:
            losses[number] = _unsureness(logits)
    return min(losses, key=losses.__getitem__)


def check_diversity(
    model: M, data: D, vectors: tuple[Vector, Vector], local: bool
) -> Generator[Work[M, D], Any, None]:
    """Refuse what was learned without labels where the predictions have collapsed.

    Args:
        model: with the deployed classifier.
        data: of the client.
        vectors: before and after training.
        local: whether BatchNorms use this client's own images.

    Raises:
        RecastError: they have.
    """
    chosen = spread_choice(len(data.labelled))
    by = chosen if local else None
    before: Tensor = yield Guess(model, data, vectors[0], chosen, by)
    after: Tensor = yield Guess(model, data, vectors[1], chosen, by)
    if collapsed(before.argmax(1), after.argmax(1)):
        raise RecastError(
            "predictions collapsed to few classes without labels: lower the learning rate or the "
            "epochs, or give some labels"
        )


def examine(
    me: Holdings[M, D], model: M, data: D, task: pb.Task, vector: Vector | None
) -> Generator[Work[M, D], Any, dict[str, int]]:
    """Right answers with the vector, and of everything that costs no byte.

    A client answers with the deployed classifier, or with a head of its own on the same features
    where that is right more often on labelled images held out of it: that costs no byte either.
    The start's features decide, since those with the vector have seen these images.

    Returns:
        ``correct``; ``head_only_correct`` (the deployed classifier without the vector),
        ``deployed_correct`` (the network as it came), ``local_head_correct`` (a head fitted here
        without the vector), ``chosen_correct`` (either head without the vector, as chosen here).
    """
    check_classes(model, data)
    local: bool = yield from own_statistics_help(me, model, data, task)
    deployed: int = yield Exam(model, data, None, "backbone", b"")
    kept = deployed
    if local:
        kept = yield Exam(model, data, None, "backbone", b"", local)
    fitted = kept
    if data.local_classes > 1:
        fitted = yield Exam(model, data, None, "local", b"", local)
    own: bool = yield from _own_head_is_better(model, data, local)
    correct = chosen = fitted if own else kept
    if vector is not None:
        correct = yield Exam(model, data, vector, "local" if own else "backbone", b"", local)
    return {
        "correct": correct,
        "head_only_correct": kept,
        "deployed_correct": deployed,
        "local_head_correct": fitted,
        "chosen_correct": chosen,
    }


def _own_head_is_better(model: M, data: D, local: bool) -> Generator[Work[M, D], Any, bool]:
    """Whether a local head is right more often than the deployed one, in five folds."""
    if len(data.labels) < ENOUGH_LABELS or data.local_classes < 2:
        return False
    features: Tensor = yield Look(model, data, None, local)
    labels = data.labels.to(features.device)
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
    own = 0
    for judge in order.to(features.device).chunk(FOLDS):
        learn = torch.ones_like(labels, dtype=torch.bool)
        learn[judge] = False
        head = head_kind("local").fit(features[learn], labels[learn], data.classes)
        own += right_answers(head, features[judge], labels[judge])
    return own > right_answers(model.head, features, labels)


def _better(frozen: Tensor, own: Tensor, labels: Tensor) -> bool:
    known = labels >= 0
    if int(known.sum()) >= ENOUGH_LABELS:
        right = [int((logits.argmax(1) == labels)[known].sum()) for logits in (frozen, own)]
        return right[1] > right[0]
    return _unsureness(own) < _unsureness(frozen)


def _unsureness(logits: Tensor) -> float:
    return float(torch.distributions.Categorical(logits=logits.float()).entropy().mean())
