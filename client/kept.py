"""What a client decides where a classifier is kept: its statistics, and what to trust."""

from __future__ import annotations

import zlib
from collections.abc import Generator, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from client.holdings import D, Holdings, M, all_labels
from client.turn import Exam, Guess, Look, Work
from protos import recast_v1_pb2 as pb
from recast_core.errors import RecastError
from recast_core.heads import head_kind, right_answers
from recast_core.label_mix import counted_mix
from recast_core.objectives import collapsed, outputs_of
from recast_core.statistics import spread_choice
from recast_core.wire.codec import Vector
from recast_core.wire.kept_head import DEPLOYED, Kept

# With fewer labels their accuracy says too little, and the predictions' own sureness is asked.
ENOUGH_LABELS = 16
# So many images say which earlier task is nearest.
FEW = 64
# Standard errors by which it must be better than where the task starts else.
CLEARLY = 2.0
# Of the labelled images, to see whether a head of the client's own would be better.
FOLDS = 5


def check_classes(model: M, data: D, kept: Kept) -> None:
    """Refuse a task over other classes than those of the classifier that is kept.

    Raises:
        RecastError: another number of classes.
        RefusedError: a classifier for other features.
    """
    outputs = outputs_of(kept.classifier(model.head))
    if outputs is not None and outputs != data.classes:
        which = "earlier task's head" if kept.head else "deployed classifier"
        raise RecastError(
            f"the task has {data.classes} classes and the {which} {outputs}: give the "
            "classes that it knows, or use another head"
        )


def own_statistics_help(
    me: Holdings[M, D], model: M, data: D, task: pb.Task, kept: Kept = DEPLOYED
) -> Generator[Work[M, D], Any, bool]:
    """Whether BatchNorms had better use this client's own images, with the start's vector.

    The start is the classifier's: the vector that it was learned with.

    Each half of the images is predicted with the statistics of the other half. Where enough have a
    label, that must make more of them right than the frozen statistics do; else it must make
    predictions surer on average, or name at least twice as many classes. The answer depends on the
    images and the deployed network alone, so it is found once, and again where they have drifted.
    """
    if not me.settings.recomputes:
        return False
    about = f"{data.origin} {model.start.prefix:08x} {zlib.crc32(kept.head):08x}"
    name = f"{task.id} {task.name} {about}"
    if name not in me.notes:
        chosen = spread_choice(len(data.labelled))
        # Of every two neighbours one: images often lie sorted by class.
        halves = chosen[::2], chosen[1::2]
        start = kept.vector
        frozen: Tensor = yield Guess(model, data, start, torch.cat(halves), None, kept)
        if len(halves[1]):
            first = yield Guess(model, data, start, halves[0], halves[1], kept)
            second = yield Guess(model, data, start, halves[1], halves[0], kept)
            own = torch.cat([first, second])
            me.notes[name] = _better(frozen, own, all_labels(data)[torch.cat(halves)])
        else:
            me.notes[name] = False
    return me.notes[name]


def nearest(
    model: M, data: D, vectors: Mapping[int, Vector], kept: Kept, local: bool
) -> Generator[Work[M, D], Any, int]:
    """Which of several vectors fits a few of this client's images best, the first if in doubt.

    The loss decides where images have labels, else how sure the predictions are. It must be lower
    than the first's by ``CLEARLY`` standard errors of the mean difference over the images: of a
    start that few images favour by chance nothing is left when training ends, but the way from it.

    Args:
        model: with the deployed classifier.
        data: of the client.
        vectors: float32 ``[D]`` each, by a number; the first is where the task starts else.
        kept: the classifier.
        local: whether BatchNorms use this client's own images.
    """
    labels = all_labels(data)
    known = (labels >= 0).nonzero().squeeze(1)
    every = spread_choice(len(labels))
    few = known[spread_choice(len(known), FEW)] if len(known) else spread_choice(len(labels), FEW)
    losses: dict[int, Tensor] = {}
    for number, vector in vectors.items():
        logits: Tensor = yield Guess(model, data, vector, few, every if local else None, kept)
        if len(known):
            losses[number] = F.cross_entropy(logits.float(), labels[few], reduction="none")
        else:
            losses[number] = _entropies(logits)
    first = next(iter(losses))
    best = min(losses, key=lambda number: float(losses[number].mean()))
    return best if _clearly_lower(losses[best], losses[first]) else first


def _clearly_lower(losses: Tensor, others: Tensor) -> bool:
    """Whether ``losses [n]`` are lower than ``others [n]`` of the same images, beyond chance."""
    gained = (others - losses).double()
    if len(gained) < 2:
        return False
    error = gained.std() / len(gained) ** 0.5
    return bool(gained.mean() > CLEARLY * error)


def check_diversity(
    model: M, data: D, vectors: tuple[Vector, Vector], kept: Kept, local: bool
) -> Generator[Work[M, D], Any, None]:
    """Refuse what was learned without labels where the predictions have collapsed.

    Args:
        model: with the deployed classifier.
        data: of the client.
        vectors: before and after training.
        kept: the classifier.
        local: whether BatchNorms use this client's own images.

    Raises:
        RecastError: they have.
    """
    chosen = spread_choice(len(data.labelled))
    by = chosen if local else None
    before: Tensor = yield Guess(model, data, vectors[0], chosen, by, kept)
    after: Tensor = yield Guess(model, data, vectors[1], chosen, by, kept)
    if collapsed(before.argmax(1), after.argmax(1)):
        raise RecastError(
            "predictions collapsed to few classes without labels: lower the learning rate or the "
            "epochs, or give some labels"
        )


def examine(
    me: Holdings[M, D],
    model: M,
    data: D,
    task: pb.Task,
    vector: Vector | None,
    kept: Kept,
) -> Generator[Work[M, D], Any, dict[str, int]]:
    """Right answers with the vector, and of everything that costs no byte.

    A client answers with the classifier that is kept, whose logits count with its label mix, or
    with a head of its own on the same features where that is right more often on labelled images
    held out of it. Neither costs a byte. The start's features decide, since those with the vector
    have seen these images. The start is the bank's, or with an earlier task's classifier the vector
    that it was learned with.

    Returns:
        ``correct``; ``head_only_correct`` (the kept classifier at the start, with the label mix),
        ``deployed_correct`` (the same without that and own statistics: the network as the task
        found it), ``local_head_correct`` (a head fitted here at the start), ``chosen_correct``
        (either head at the start, as chosen here).
    """
    check_classes(model, data, kept)
    start, how = kept.vector, (kept.kind, kept.head)
    local: bool = yield from own_statistics_help(me, model, data, task, kept)
    deployed: int = yield Exam(model, data, start, *how)
    mix = counted_mix(data.labels, data.classes) if len(data.labels) else None
    stays = deployed
    if local or mix is not None:
        stays = yield Exam(model, data, start, *how, local, mix)
    fitted = stays
    if data.local_classes > 1:
        fitted = yield Exam(model, data, start, "local", b"", local)
    own: bool = yield from _own_head_is_better(model, data, kept, local)
    correct = chosen = fitted if own else stays
    if vector is None:
        vector = None if start is None else model.start.initial_vector.numpy()
    if vector is not None:
        head = ("local", b"", local) if own else (*how, local, mix)
        correct = yield Exam(model, data, vector, *head)
    return {
        "correct": correct,
        "head_only_correct": stays,
        "deployed_correct": deployed,
        "local_head_correct": fitted,
        "chosen_correct": chosen,
    }


def _own_head_is_better(
    model: M, data: D, kept: Kept, local: bool
) -> Generator[Work[M, D], Any, bool]:
    """Whether a local head is right more often than the kept one, in five folds.

    Both are told the labels of four of them, which the latter takes as a label mix.
    """
    if len(data.labels) < ENOUGH_LABELS or data.local_classes < 2:
        return False
    features: Tensor = yield Look(model, data, kept.vector, local)
    labels = data.labels.to(features.device)
    classifier = kept.classifier(model.head)
    own = stays = 0
    for learn, judge in folds(labels):
        head = head_kind("local").fit(features[learn], labels[learn], data.classes)
        mix = counted_mix(labels[learn], data.classes)
        own += right_answers(head, features[judge], labels[judge])
        stays += right_answers(classifier, features[judge], labels[judge], mix)
    return own > stays


def folds(labels: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Of ``labels [N]`` in ``FOLDS`` parts, the same each time: whom to learn from, whom to judge.

    Yields:
        A mask ``[N]`` of the others, and the rows of one part.
    """
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
    for judge in order.to(labels.device).chunk(FOLDS):
        learn = torch.ones_like(labels, dtype=torch.bool)
        learn[judge] = False
        yield learn, judge


def _better(frozen: Tensor, own: Tensor, labels: Tensor) -> bool:
    known = labels >= 0
    if int(known.sum()) >= ENOUGH_LABELS:
        right = [int((logits.argmax(1) == labels)[known].sum()) for logits in (frozen, own)]
        return right[1] > right[0]
    # A network that takes everything for one class is sure of it.
    lost = collapsed(own.argmax(1), frozen.argmax(1))
    return lost or _unsureness(own) < _unsureness(frozen)


def _unsureness(logits: Tensor) -> float:
    return float(_entropies(logits).mean())


def _entropies(logits: Tensor) -> Tensor:
    """How unsure each prediction is: ``[n]``, of logits ``[n, C]``."""
    found: Tensor = torch.distributions.Categorical(logits=logits.float()).entropy()
    return found
