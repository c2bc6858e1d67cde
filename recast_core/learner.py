"""What a client trains, whatever the method: from a vector to a vector, and to features."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple, Protocol, Self

import torch
from torch import Tensor, nn

from recast_core.backbones import Preprocess
from recast_core.errors import RecastError
from recast_core.fitting import features_of
from recast_core.folded import BankFold, FoldedClient, ImageStore, SplitModel
from recast_core.folded import train as fit_clients
from recast_core.methods import MethodModel, parse_method, train
from recast_core.methods.plain import PlainModel
from recast_core.mimicry import fingerprint
from recast_core.model import RecastModel
from recast_core.objectives import objective_of
from recast_core.recipe import Recipe
from recast_core.start import MethodStart, Start
from recast_core.statistics import features_by, own_statistics, spread_choice
from recast_core.wire.codec import Vector


class Learned(NamedTuple):
    """What a client's training came to.

    Attributes:
        vector: afterwards, float32 ``[D]``.
        loss: mean of the last epoch's steps; 0 where no step had one.
    """

    vector: Vector
    loss: float


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
        local: bool = False,
    ) -> Learned:
        """Train from ``vector``.

        Args:
            vector: float32 ``[D]``.
            images: uint8 ``[N, H, W]`` or ``[N, H, W, C]``.
            labels: int64 ``[N]``, -1 for none.
            classes: of the task.
            recipe: of the round.
            seed: of this client, round and task.
            local: normalise by the batch, see ``recast_core.statistics``.

        Raises:
            RecastError: nothing to learn from, or a vector that diverged.
        """

    @property
    def head(self) -> nn.Module:
        """The classifier that is kept: the deployed one unless told otherwise, on its device."""

    def keeping(self, head: nn.Module) -> Self:
        """The same model where ``head``, on its device, is the classifier that is kept."""

    def expecting(self, mix: Tensor | None) -> Self:
        """The same model where a client without labels is thought to have the mix ``[C]``."""

    def features(
        self, images: Tensor, vector: Vector | None = None, by: Tensor | None = None
    ) -> Tensor:
        """Features ``[N, d]`` of uint8 images.

        Args:
            images: uint8 ``[N, ...]``.
            vector: the start's where ``None``.
            by: uint8 ``[M, ...]``, the images whose statistics BatchNorms use; frozen ones where
                ``None``.
        """


@dataclass(frozen=True, eq=False)
class BankLearner:
    """RECAST: the coefficients of an attached model."""

    model: SplitModel
    preprocess: Preprocess
    kept: nn.Module | None = None
    mix: Tensor | None = None

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
        local: bool = False,
    ) -> Learned:
        """See ``Learner``."""
        # A batch of one client: the arithmetic of every grid is then the same.
        client = folded_client(torch.arange(len(labels)), labels, seed, local)
        found = fit_clients(
            BankFold(self.model),
            ImageStore(images, self.preprocess, self.model.prefix, self.model.net.device),
            [replace(client, mix=self.mix)],
            objective_of(recipe.objective, self.head, classes),
            recipe,
            torch.from_numpy(vector),
        )
        if not bool(found.finite[0]):
            raise RecastError("training ended in NaN or infinity: lower the learning rate")
        return Learned(found.coefficients[0].numpy(), float(found.losses[0]))

    @property
    def head(self) -> nn.Module:
        """See ``Learner``."""
        return self.model.net.own_head if self.kept is None else self.kept

    def keeping(self, head: nn.Module) -> Self:
        """See ``Learner``."""
        return replace(self, kept=head)

    def expecting(self, mix: Tensor | None) -> Self:
        """See ``Learner``."""
        return replace(self, mix=mix)

    def features(
        self, images: Tensor, vector: Vector | None = None, by: Tensor | None = None
    ) -> Tensor:
        """See ``Learner``."""
        net = self.model.net
        net.coefficients.load(None if vector is None else torch.from_numpy(vector))
        return _features(net, self.preprocess, images, by)


@dataclass(frozen=True, eq=False)
class MethodLearner:
    """Another method on the backbone, with the same objective."""

    model: MethodModel
    preprocess: Preprocess
    start: MethodStart
    device: torch.device
    kept: nn.Module | None = None
    mix: Tensor | None = None

    def fit(
        self,
        vector: Vector,
        images: Tensor,
        labels: Tensor,
        classes: int,
        recipe: Recipe,
        seed: int,
        local: bool = False,
    ) -> Learned:
        """See ``Learner``."""
        self.model.load_vector(torch.from_numpy(vector).to(self.device))
        loss = train(
            self.model,
            self.preprocess(images).to(self.device),
            labels.to(self.device),
            objective_of(recipe.objective, self.head, classes, self.mix),
            recipe,
            seed,
            local=local,
        )
        return Learned(self.model.sent_vector().cpu().numpy(), loss)

    @property
    def head(self) -> nn.Module:
        """See ``Learner``."""
        return self.model.net.head if self.kept is None else self.kept

    def keeping(self, head: nn.Module) -> Self:
        """See ``Learner``."""
        return replace(self, kept=head)

    def expecting(self, mix: Tensor | None) -> Self:
        """See ``Learner``."""
        return replace(self, mix=mix)

    def features(
        self, images: Tensor, vector: Vector | None = None, by: Tensor | None = None
    ) -> Tensor:
        """See ``Learner``."""
        wanted = self.start.initial_vector if vector is None else torch.from_numpy(vector)
        self.model.load_vector(wanted.to(self.device))
        return _features(self.model.net, self.preprocess, images, by)


@torch.no_grad()
def _features(
    net: RecastModel | PlainModel, preprocess: Preprocess, images: Tensor, by: Tensor | None
) -> Tensor:
    device = next(net.parameters()).device
    pixels = preprocess(images).to(device)
    if by is None or net.statistics is None:
        return features_of(net, pixels)
    giving = preprocess(by[spread_choice(len(by))]).to(device)
    return features_by(net.features, net.statistics, (giving, pixels))


def folded_client(rows: Tensor, labels: Tensor, seed: int, local: bool = False) -> FoldedClient:
    """A client some of whose images may lack a label.

    Args:
        rows: int64 ``[N]`` of its images in the store.
        labels: int64 ``[N]``, -1 for none. Where all are, each image counts as if it had one: then
            the objective asks for none.
        seed: of its shuffling.
        local: see ``FoldedClient``.
    """
    known = labels >= 0
    if not known.any():
        return FoldedClient(rows, torch.zeros_like(labels), seed, local=local)
    return FoldedClient(rows[known], labels[known], seed, rows[~known], local=local)


def method_learner(
    spec: str,
    backbone: nn.Module,
    preprocess: Preprocess,
    device: torch.device,
    *,
    statistics: bool = False,
) -> MethodLearner:
    """``backbone``, changed in place, as the method ``spec`` learns with it.

    Args:
        spec: of the method.
        backbone: float32.
        preprocess: of the backbone.
        device: where to learn.
        statistics: let BatchNorms take statistics of a client's own images.

    Raises:
        RecastError: an unknown method, or one that finds nothing in the backbone to train.
    """
    identity = fingerprint(backbone)
    method = parse_method(spec)
    model = method.prepare(backbone.to(device))
    if statistics:
        model.net.statistics = own_statistics(model.net.backbone)
    start = MethodStart(method.canonical, identity, model.sent_vector().cpu(), model.trained_count)
    return MethodLearner(model, preprocess, start, device)
