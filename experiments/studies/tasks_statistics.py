"""A local head on BatchNorm statistics of the client's own images: nothing learned, nothing sent.

No setting of the product has it: it recomputes statistics only where a classifier is kept, which
says whether they help. Here five folds of a client's training images say so, as they do there
between two heads; or they are taken in any case.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import Any

from torch import Tensor

from client.kept import ENOUGH_LABELS, folds
from client.learners import pick_device
from experiments.engines.folded.data import NodeRows, load_task
from recast_core.backbones import load_backbone
from recast_core.heads import head_kind, right_answers
from recast_core.learner import MethodLearner, method_learner
from recast_core.settings import Settings
from recast_core.task_spec import parse_tasks

ALWAYS, CHOSEN = "always", "chosen"


def local_heads(
    settings: Settings, tasks: Sequence[str], clients: int, statistics: str
) -> dict[str, Any]:
    """Each task's accuracy over all clients' test images, as the study's rows have it.

    A client of one class is left out, as a federation leaves it out.

    Args:
        settings: of the federation beside it; backbone, partition and seed count.
        tasks: in the task grammar.
        clients: how many.
        statistics: ``ALWAYS`` a client's own, ``CHOSEN`` where folds of its training images have
            more right with them, or ``""``: never.

    Raises:
        RecastError: data or a backbone that cannot be had.
    """
    began = time.monotonic()
    loaded = load_backbone(settings.backbone)
    device = pick_device(settings.device)
    learner = method_learner(
        "head-only", loaded.model, loaded.preprocess, device, statistics=bool(statistics)
    )
    found = {}
    for spec in parse_tasks(" ".join(tasks)):
        right = total = 0
        for node in _nodes(str(spec), loaded.preprocess.size, clients, settings):
            right, total = right + _right(learner, node, statistics), total + node.test_examples
        nothing = {"numbers": 0, "update_bytes": 0, "up": 0.0, "down": 0.0}
        found[spec.name] = {"accuracy": right / total, **nothing}
    seconds = round(time.monotonic() - began, 2)
    return {"tasks": found, "forgetting": 0.0, "bank_bytes": 0, "seconds": seconds}


def _nodes(task: str, size: int, clients: int, settings: Settings) -> Iterator[NodeRows]:
    every = load_task(task, size, clients, settings)
    nodes = (every.node(number) for number in range(clients))
    return (node for node in nodes if node.local_classes > 1)


def _right(learner: MethodLearner, node: NodeRows, statistics: str) -> int:
    images = node.task.images
    own = images[node.learn]
    by = own if statistics else None
    learn = learner.features(own, None, by)
    if statistics == CHOSEN and not more_in_folds(learn, learner.features(own), node.labels):
        by, learn = None, learner.features(own)
    head = head_kind("local").fit(learn, node.labels.to(learn.device), node.classes)
    judge = learner.features(images[node.judge], None, by)
    return right_answers(head, judge, node.judge_labels)


def more_in_folds(first: Tensor, second: Tensor, labels: Tensor) -> bool:
    """Whether heads of the first features ``[N, d]`` are right more often than of the second."""
    if len(labels) < ENOUGH_LABELS:
        return False
    right, labels = [0, 0], labels.to(first.device)
    for learn, judge in folds(labels):
        for place, features in enumerate((first, second)):
            head = head_kind("local").fit(features[learn], labels[learn], int(labels.max()) + 1)
            right[place] += right_answers(head, features[judge], labels[judge])
    return right[0] > right[1]
