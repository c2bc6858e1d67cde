"""Who has which images of a domain: labels dealt by a Dirichlet draw, some of them hidden.

flwr-datasets' rule, written out: a machine with a GPU may lack flwr-datasets.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from client.data.arrays import UNLABELLED, Dataset, Labels, stratified_split
from client.data.labelling import known_labels
from recast_core.errors import RecastError
from recast_core.folded import FoldedClient

LEAST_IMAGES = 10
_DRAWS = 200


@dataclass(frozen=True, eq=False)
class Domain:
    """All clients' images under one shift.

    Attributes:
        images: uint8 ``[N + M, H, W, C]`` on the device: training images, then test images.
        learn: int64 ``[N]``, labels of the training images.
        judge: int64 ``[M]``, of the test images.
        classes: how many.
    """

    images: Tensor
    learn: Labels
    judge: Labels
    classes: int

    def dataset(self) -> Dataset:
        """The labels as a data set without pixels, for whoever deals labels."""
        none = np.zeros((0, 1, 1), np.uint8)
        return Dataset(none, self.learn, none, self.judge, tuple(map(str, range(self.classes))))


@dataclass(frozen=True, eq=False)
class Share:
    """One client's images, as rows of its domain's.

    Attributes:
        learn: int64 ``[n]``, training images with a label.
        labels: int64 ``[n]``.
        unlabelled: int64, the other training images.
        judge: int64 ``[m]``, images that it is judged by: of its own mix of labels.
        judge_labels: int64 ``[m]``.
        local: its BatchNorms normalise by its own images.
        mix: float32 ``[C]``, the label mix that is expected of it where nobody has a label.
        own: it answers with a head of its own.
    """

    learn: Tensor
    labels: Tensor
    unlabelled: Tensor
    judge: Tensor
    judge_labels: Tensor
    local: bool = False
    mix: Tensor | None = None
    own: bool = False

    @property
    def every(self) -> Tensor:
        """All its training images."""
        return torch.cat([self.learn, self.unlabelled])

    def client(self, seed: int, *, label_free: bool) -> FoldedClient:
        """What the folded engine trains; see ``experiments.engines.folded``."""
        every, local = self.every, self.local
        if label_free:
            return FoldedClient(every, torch.zeros_like(every), seed, local=local, mix=self.mix)
        filler = self.unlabelled if local else self.unlabelled[:0]
        return FoldedClient(self.learn, self.labels, seed, filler, local)


def deal(
    domain: Domain, clients: int, alpha: float, seed: int, labels: int, *, validate: bool = False
) -> list[Share]:
    """Deal a domain's images.

    Args:
        domain: what is dealt.
        clients: how many.
        alpha: of the Dirichlet draw, one for each class.
        seed: of the draw, of who gets which, and of the choice of labels.
        labels: labelled images in the whole fleet; -1 all, 0 none.
        validate: judge by a fifth of the training images, of each class, in place of the test
            images; they are then not learned from.

    Raises:
        RecastError: so few images that no draw gives every client ten.
    """
    known = known_labels(domain.dataset(), labels, seed)
    train = np.arange(len(domain.learn))
    judge, judged = train + 0, domain.learn
    if validate:
        train, held = stratified_split(domain.learn, 0.2, seed)
        judge, judged = held, domain.learn[held]
    else:
        judge, judged = len(domain.learn) + np.arange(len(domain.judge)), domain.judge
    random = np.random.default_rng([seed, 12])
    for _ in range(_DRAWS):
        parts = random.dirichlet(np.full(clients, alpha), domain.classes)
        learn = _cut(domain.learn[train], parts, random)
        if min(map(len, learn)) >= LEAST_IMAGES:
            test = _cut(judged, parts, random)
            rows = zip(learn, test, strict=True)
            return [_share(train[a], known, judge[b], judged[b]) for a, b in rows]
    raise RecastError(
        f"{len(train)} images do not give each of {clients} clients {LEAST_IMAGES}: take fewer"
    )


def _cut(
    labels: Labels, parts: np.ndarray, random: np.random.Generator
) -> Sequence[np.ndarray]:  # of int64
    """Places of ``labels`` for each client, by its part of each class ``[C, J]``."""
    found: list[list[np.ndarray]] = [[] for _ in range(parts.shape[1])]
    for label, part in enumerate(parts):
        members = random.permutation(np.flatnonzero(labels == label))
        ends = (np.cumsum(part)[:-1] * len(members)).round().astype(np.int64)
        for own, piece in zip(found, np.split(members, ends), strict=True):
            own.append(piece)
    return [np.sort(np.concatenate(own)) for own in found]


def _share(rows: np.ndarray, known: Labels, judge: np.ndarray, judged: Labels) -> Share:
    mine = known[rows]
    labelled = mine != UNLABELLED
    learn, labels, rest, tests, answers = (
        torch.from_numpy(np.ascontiguousarray(array))
        for array in (rows[labelled], mine[labelled], rows[~labelled], judge, judged)
    )
    return Share(learn, labels, rest, tests, answers)
