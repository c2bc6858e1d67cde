"""A probe: images of tasks that lie on the server's machine, and what coefficients make of them."""

from __future__ import annotations

import logging
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from client.data import Dataset, TaskSpec, load_dataset, parse_task, parse_tasks
from client.data.class_ids import map_labels
from client.learners import attached_to, learner_with
from recast_core.bank import TemplateBank
from recast_core.classes import Names
from recast_core.errors import RecastError
from recast_core.heads import head_kind, right_answers
from recast_core.heads.ridge import ridge_head
from recast_core.learner import BankLearner, MethodLearner
from recast_core.settings import Settings
from recast_core.start import Start
from recast_core.wire.codec import Vector
from server.rounds.probe import Score
from server.rounds.state import TaskState

logger = logging.getLogger("recast.server")
# Images of a task that are looked at in each round.
IMAGES = 128


class ImageProbe:
    """Scores coefficients on images of each task: see ``server.rounds.probe.Probe``.

    Images of the server's own are the training images of their DATA, of which a part may be named;
    where clients are simulated, the tasks' own are their test images.

    With a classifier that is kept that is what is right; else half of the images fit a ridge head
    and the other half say what that gets right.
    """

    def __init__(
        self, settings: Settings, start: Start, sources: Mapping[str, TaskSpec] | None
    ) -> None:
        """Load nothing yet.

        Args:
            settings: of the run.
            start: of the run.
            sources: data by the name of the task; ``None`` for each task's own.
        """
        self._settings, self._start, self._sources = settings, start, sources
        self._learner: BankLearner | MethodLearner | None = None
        self._scores: dict[int, Score | None] = {}

    @property
    def each(self) -> bool:
        """See ``Probe``: not by images that are clients' own, which say how good a run is."""
        return self._sources is not None

    def of(self, state: TaskState) -> Score | None:
        """See ``Probe``; ``None`` where the images cannot be read or are of other classes."""
        if state.number not in self._scores:
            self._scores[state.number] = self._make(state)
        return self._scores[state.number]

    def _make(self, state: TaskState) -> Score | None:
        try:
            spec = self._spec(state)
            if spec is None:
                return None
            learner = self._learner = self._learner or self._load()
            skip = self._settings.skip_unreadable
            data = load_dataset(spec, learner.preprocess.size, skip_unreadable=skip)
            images, labels = _some(data, state.classes, own=self.each)
        except RecastError as error:
            logger.warning("no probe for task %s: %s", state.name, error)
            return None
        kept, local = head_kind(self._settings.head_kind).kept, self._settings.recomputes
        memory: dict[bytes, float] = {}

        def score(vector: Vector) -> float:
            key = vector.tobytes()
            if key not in memory:
                if len(memory) > 64:
                    memory.clear()
                memory[key] = (
                    _kept(learner, vector, images, labels, local=local)
                    if kept
                    else _fitted(learner, vector, images, labels)
                )
            return memory[key]

        return score

    def _spec(self, state: TaskState) -> TaskSpec | None:
        if self._sources is not None:
            return self._sources.get(state.name)
        return parse_task(state.source) if state.source else None

    def _load(self) -> BankLearner | MethodLearner:
        if isinstance(self._start, TemplateBank):
            return BankLearner(*attached_to(self._settings, self._start))
        return learner_with(self._settings, self._start.method)


def probe_of(settings: Settings, start: Start, *, own: bool) -> ImageProbe | None:
    """The probe that ``settings.probe`` asks for.

    Args:
        settings: of the run.
        start: of the run.
        own: the tasks' own data lie on this machine and are what clients have.

    Raises:
        RecastError: a specification that cannot be.
    """
    if settings.probe == "none" or (settings.probe == "auto" and not own):
        return None
    if settings.probe == "auto":
        return ImageProbe(settings, start, None)
    return ImageProbe(settings, start, {spec.name: spec for spec in parse_tasks(settings.probe)})


def _some(data: Dataset, classes: Names, *, own: bool) -> tuple[Tensor, Tensor]:
    """Up to ``IMAGES`` images, spread over all, and their labels as the task counts them."""
    images, ids = (data.x_train, data.y_train) if own else (data.x_test, data.y_test)
    rows = np.linspace(0, len(ids) - 1, min(IMAGES, len(ids))).astype(np.int64)
    labels = ids[rows]
    if classes and classes != data.classes:
        labels = map_labels([labels], data.classes, classes)[0]
    return torch.from_numpy(images[rows].copy()), torch.from_numpy(labels.copy())


def _kept(
    learner: BankLearner | MethodLearner,
    vector: Vector,
    images: Tensor,
    labels: Tensor,
    *,
    local: bool,
) -> float:
    """What the deployed classifier gets right, with these images' statistics if that is more."""
    found = [right_answers(learner.head, learner.features(images, vector), labels)]
    if local:
        found.append(right_answers(learner.head, learner.features(images, vector, images), labels))
    return max(found) / len(labels)


def _fitted(
    learner: BankLearner | MethodLearner, vector: Vector, images: Tensor, labels: Tensor
) -> float:
    """What a ridge head of every other image gets right of those between."""
    features = learner.features(images, vector)
    if not bool(torch.isfinite(features).all()):
        return 0.0
    classes, judged = int(labels.max()) + 1, labels[1::2]
    head = ridge_head(features[::2], labels[::2].to(features.device), classes)
    return right_answers(head, features[1::2], judged) / max(len(judged), 1)
