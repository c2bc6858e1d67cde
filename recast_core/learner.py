"""What a client trains, whatever the method: from a vector to a vector, and to features."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from recast_core.backbones import Preprocess
from recast_core.errors import RecastError
from recast_core.fitting import features_of
from recast_core.folded import BankFold, FoldedClient, ImageStore, SplitModel
from recast_core.folded import train as fit_clients
from recast_core.methods import MethodModel, parse_method, train
from recast_core.mimicry import fingerprint
from recast_core.objectives import SplitRidge
from recast_core.recipe import Recipe
from recast_core.start import MethodStart, Start
from recast_core.wire.codec import Vector


class Learner(Protocol):
    """A model that learns by one vector."""

    @property
    def start(self) -> Start:
        """Where its vector counts from."""

    def fit(
        self,
        vector: Vector,
        images: Tensor,
        labels: Tensor,
        classes: int,
        recipe: Recipe,
        seed: int,
    ) -> Vector:
        """Train from ``vector``: the vector afterwards, float32 ``[D]``.

        Args:
            vector: float32 ``[D]``.
            images: uint8 ``[N, H, W]`` or ``[N, H, W, C]``.
            labels: int64 ``[N]``.
            classes: of the task.
            recipe: of the round.
            seed: of this client, round and task.

        Raises:
            RecastError: nothing to learn from, or a vector that diverged.
        """

    def features(self, images: Tensor, vector: Vector | None = None) -> Tensor:
        """Features ``[N, d]`` of uint8 images with a vector, or with the start's."""


@dataclass(frozen=True, eq=False)
class BankLearner:
    """RECAST: the coefficients of an attached model."""

    model: SplitModel
    preprocess: Preprocess

    @property
    def start(self) -> Start:
        """The bank."""
        return self.model.net.bank

    def fit(
        self,
        vector: Vector,
        images: Tensor,
        labels: Tensor,
        classes: int,
        recipe: Recipe,
        seed: int,
    ) -> Vector:
        """See ``Learner``."""
        # A batch of one client: the arithmetic of every grid is then the same.
        found = fit_clients(
            BankFold(self.model),
            ImageStore(images, self.preprocess, self.model.prefix, self.model.net.device),
            [FoldedClient(torch.arange(len(labels)), labels, seed)],
            SplitRidge(classes),
            recipe,
            torch.from_numpy(vector),
        )
        if not bool(found.finite[0]):
            raise RecastError("training ended in NaN or infinity: lower the learning rate")
        trained: Vector = found.coefficients[0].numpy()
        return trained

    def features(self, images: Tensor, vector: Vector | None = None) -> Tensor:
        """See ``Learner``."""
        net = self.model.net
        net.coefficients.load(None if vector is None else torch.from_numpy(vector))
        return features_of(net, self.preprocess(images).to(net.device))


@dataclass(frozen=True, eq=False)
class MethodLearner:
    """Another method on the backbone, with the same objective."""

    model: MethodModel
    preprocess: Preprocess
    start: MethodStart
    device: torch.device

    def fit(
        self,
        vector: Vector,
        images: Tensor,
        labels: Tensor,
        classes: int,
        recipe: Recipe,
        seed: int,
    ) -> Vector:
        """See ``Learner``."""
        self.model.load_vector(torch.from_numpy(vector).to(self.device))
        train(
            self.model,
            self.preprocess(images).to(self.device),
            labels.to(self.device),
            SplitRidge(classes),
            recipe,
            seed,
        )
        trained: Vector = self.model.sent_vector().cpu().numpy()
        return trained

    def features(self, images: Tensor, vector: Vector | None = None) -> Tensor:
        """See ``Learner``."""
        wanted = self.start.initial_vector if vector is None else torch.from_numpy(vector)
        self.model.load_vector(wanted.to(self.device))
        return features_of(self.model, self.preprocess(images).to(self.device))


def method_learner(
    spec: str, backbone: nn.Module, preprocess: Preprocess, device: torch.device
) -> MethodLearner:
    """``backbone``, changed in place, as the method ``spec`` learns with it.

    Raises:
        RecastError: an unknown method, or one that finds nothing in the backbone to train.
    """
    identity = fingerprint(backbone)
    method = parse_method(spec)
    model = method.prepare(backbone.to(device))
    start = MethodStart(method.canonical, identity, model.sent_vector().cpu(), model.trained_count)
    return MethodLearner(model, preprocess, start, device)
