"""The fleets of ``one_round``: a kept classifier under a shift, or local heads on new classes."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.func import functional_call, jvp, vmap

from client.data import load_dataset, parse_tasks
from experiments.studies.normal_sums import Normal, normal_of
from experiments.studies.shift_fleet import Domain, Share, deal
from experiments.studies.shift_judge import accuracy, with_statistics
from experiments.studies.shift_learners import FoldedLearner
from recast_core.backbones import Backbone, load_backbone
from recast_core.bank import TemplateBank
from recast_core.banks import load_bank
from recast_core.config import RecastConfig
from recast_core.folded import split_model
from recast_core.heads import head_kind, right_answers
from recast_core.mimicry import mimic
from recast_core.model import RecastModel, attach
from recast_core.objectives import split_ridge_logits
from recast_core.statistics import own_statistics

# Tangents of one forward pass: more take more memory and no less time.
_AT_ONCE = 12


class Fleet:
    """The default network with its bank, and clients under one shift; its classifier stays."""

    backbone = "digits_resnet20"
    objective = "cross-entropy"

    def __init__(self, task: str) -> None:
        self.loaded: Backbone = load_backbone(self.backbone)
        self.net = attach(self.loaded.model, self.bank(), self.loaded.head)
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

    def bank(self) -> TemplateBank:
        """What the clients' coefficients combine."""
        return load_bank(self.backbone)

    def shares(self, clients: int, seed: int, *, validate: bool) -> list[Share]:
        """Who has which images."""
        dealt = deal(self.domain, clients, 0.5, seed, -1, validate=validate)
        return with_statistics(self.learner, dealt)

    def accuracy(
        self, shares: Sequence[Share], vectors: Sequence[Tensor], *, frozen: bool = False
    ) -> float:
        """Right answers by judging images, of all clients; ``frozen`` statistics or not."""
        return accuracy(self.learner, shares, vectors, frozen=frozen)

    def normal(self, share: Share, vector: Tensor) -> Normal:
        """The client's sums at ``vector``, one forward-mode pass for each coefficient."""
        logits, labels = self.logits_of(share)

        def along(axis: Tensor) -> Tensor:
            found: Tensor = jvp(logits, (vector,), (axis,))[1]
            return found

        jacobian = vmap(along, out_dims=-1, chunk_size=_AT_ONCE)(torch.eye(len(vector)))
        return normal_of(logits(vector), labels, jacobian)

    def logits_of(self, share: Share) -> tuple[Callable[[Tensor], Tensor], Tensor]:
        """Logits ``[N, C]`` of what a client learns from by its vector, and what is right."""
        x = self.loaded.preprocess(self.images[share.learn])
        statistics = self.net.statistics
        counted = torch.ones(len(x)) if share.local else None
        assert statistics is not None

        def logits(flat: Tensor) -> Tensor:
            with statistics.of(counted):
                found: Tensor = functional_call(self.net, {"coefficients.flat": flat}, (x,))
            return found

        return logits, share.labels


class NewClasses(Fleet):
    """A network that has seen letters with a bank of its own weights, and tasks of other classes.

    Every client fits a ridge head of its own; what trains is the split-ridge objective.
    """

    backbone = "glyph_resnet20"
    objective = "split-ridge"

    def bank(self) -> TemplateBank:
        """Its own weights, 24 numbers."""
        return mimic(self.loaded.model, RecastConfig("conv"))

    def shares(self, clients: int, seed: int, *, validate: bool) -> list[Share]:
        """Who has which images, without those of one class, who take no part in such a task."""
        dealt = deal(self.domain, clients, 0.5, seed, -1, validate=validate)
        return [share for share in dealt if len(share.labels.unique()) > 1]

    @torch.no_grad()
    def accuracy(
        self, shares: Sequence[Share], vectors: Sequence[Tensor], *, frozen: bool = False
    ) -> float:
        """The same of ridge heads, each fitted to its client's features; statistics are frozen."""
        right = total = 0
        for share, vector in zip(shares, vectors, strict=True):
            seen = self.learner.features(torch.cat([share.learn, share.judge]), vector, None)
            learned, judged = seen.split([len(share.learn), len(share.judge)])
            if len(judged):
                head = head_kind("local").fit(learned, share.labels, self.domain.classes)
                right += right_answers(head, judged, share.judge_labels)
                total += len(judged)
        return right / max(total, 1)

    def logits_of(self, share: Share) -> tuple[Callable[[Tensor], Tensor], Tensor]:
        """See ``Fleet``: of each half of the images by the ridge head of the other half."""
        order = torch.randperm(len(share.learn), generator=torch.Generator().manual_seed(0))
        x, labels = self.loaded.preprocess(self.images[share.learn[order]]), share.labels[order]
        features = _Features(self.net)

        def halves(flat: Tensor) -> list[tuple[Tensor, Tensor]]:
            seen = functional_call(features, {"net.coefficients.flat": flat}, (x,))
            return split_ridge_logits(seen, labels, self.domain.classes)

        def logits(flat: Tensor) -> Tensor:
            return torch.cat([found for found, _ in halves(flat)])

        right = [known for _, known in halves(self.learner.start.initial_vector)]
        return logits, torch.cat(right)


class _Features(torch.nn.Module):
    def __init__(self, net: RecastModel) -> None:
        super().__init__()
        self.net = net

    def forward(self, images: Tensor) -> Tensor:
        return self.net.features(images)
