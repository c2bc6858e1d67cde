"""What a client trains, whatever the method: a vector with a start, and features that follow it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from recast_core.codec import Vector
from recast_core.fitting import features_of, fit_coefficients
from recast_core.messages import Hyperparameters
from recast_core.methods import MethodModel, canonical, parse_method, train
from recast_core.mimicry import fingerprint
from recast_core.model import RecastModel
from recast_core.start import MethodStart, Start


class Learner(Protocol):
    """A model that learns by one vector."""

    @property
    def start(self) -> Start:
        """Where its vector counts from."""

    @property
    def device(self) -> torch.device:
        """Where images must be."""

    def load(self, vector: Vector | None = None) -> None:
        """Continue from a vector ``[D]``, or from the start."""

    def fit(
        self, images: Tensor, labels: Tensor, classes: int, hyper: Hyperparameters, seed: int
    ) -> Vector:
        """Train from where it is: the vector afterwards, float32 ``[D]``.

        Raises:
            RecastError: nothing to learn from, or a vector that diverged.
        """

    def features(self, images: Tensor) -> Tensor:
        """Features ``[N, d]`` of images ``[N, 3, H, W]``, without gradients."""


@dataclass(frozen=True, eq=False)
class BankLearner:
    """RECAST: the coefficients of an attached model."""

    net: RecastModel

    @property
    def start(self) -> Start:
        """The bank."""
        return self.net.bank

    @property
    def device(self) -> torch.device:
        """See ``Learner``."""
        return self.net.device

    def load(self, vector: Vector | None = None) -> None:
        """See ``Learner``."""
        self.net.coefficients.load(None if vector is None else torch.from_numpy(vector))

    def fit(
        self, images: Tensor, labels: Tensor, classes: int, hyper: Hyperparameters, seed: int
    ) -> Vector:
        """See ``Learner``."""
        found = fit_coefficients(
            self.net,
            images,
            labels,
            classes,
            epochs=hyper.epochs,
            batch=hyper.batch,
            learning_rate=hyper.learning_rate,
            seed=seed,
        )
        vector: Vector = found.coefficients.numpy()
        return vector

    def features(self, images: Tensor) -> Tensor:
        """See ``Learner``."""
        return features_of(self.net, images)


@dataclass(frozen=True, eq=False)
class MethodLearner:
    """Another method on the backbone, with the same objective."""

    model: MethodModel
    start: MethodStart
    device: torch.device

    def load(self, vector: Vector | None = None) -> None:
        """See ``Learner``."""
        wanted = self.start.initial_vector if vector is None else torch.from_numpy(vector)
        self.model.load_vector(wanted.to(self.device))

    def fit(
        self, images: Tensor, labels: Tensor, classes: int, hyper: Hyperparameters, seed: int
    ) -> Vector:
        """See ``Learner``."""
        train(
            self.model,
            images,
            labels,
            classes,
            epochs=hyper.epochs,
            batch=hyper.batch,
            learning_rate=hyper.learning_rate,
            seed=seed,
        )
        vector: Vector = self.model.sent_vector().cpu().numpy()
        return vector

    def features(self, images: Tensor) -> Tensor:
        """See ``Learner``."""
        return features_of(self.model, images)


def method_learner(spec: str, backbone: nn.Module, device: torch.device) -> MethodLearner:
    """``backbone``, changed in place, as the method ``spec`` learns with it.

    Raises:
        RecastError: an unknown method, or one that finds nothing in the backbone to train.
    """
    identity = fingerprint(backbone)
    model = parse_method(spec).prepare(backbone.to(device))
    start = MethodStart(canonical(spec), identity, model.sent_vector().cpu(), model.trained_count)
    return MethodLearner(model, start, device)
