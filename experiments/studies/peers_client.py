"""What every simulator in ``peers`` is given: the same images, backbone and local work."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from client.data import load_dataset, parse_task
from experiments.studies.scale import CLASSES, LIGHT, write_images
from recast_core.backbones import load_backbone
from recast_core.bank import TemplateBank
from recast_core.banks import load_bank
from recast_core.errors import RecastError
from recast_core.folded import split_model
from recast_core.learner import BankLearner
from recast_core.mimicry import mimic
from recast_core.model import attach
from recast_core.settings import Settings
from recast_core.wire.codec import Vector

_SHIFTED = "digits[50%:]+impulse:4"
_SIZE = 16
Batches = Callable[[], Iterable[tuple[Tensor, Tensor]]]


@dataclass(frozen=True)
class Case:
    """What is simulated.

    Attributes:
        clients: how many, all in every round.
        light: a perceptron and 4 images a client in place of the default backbone and 32.
        rounds: the first one warms up, the last one is the warm one.
        folder: where the images are.
        passes: over a client's images in a round; the usual number where 0.
        rate: of AdamW; the usual one where 0.
        watched: keep a third of the training images from the clients, to see each round by.
    """

    clients: int
    light: bool
    rounds: int
    folder: Path
    passes: int = 0
    rate: float = 0.0
    watched: bool = False

    @property
    def images(self) -> int:
        """Of each client."""
        return 4 if self.light else 32

    @property
    def path(self) -> Path:
        """The images."""
        kind = "light" if self.light else "watched" if self.watched else "real"
        return self.folder / f"{kind}-{self.clients}.npz"

    @property
    def bank(self) -> Path:
        """Of the network's own weights, 24 coefficients; to be watched, the one of the package."""
        return self.folder / f"{'package' if self.watched else 'own'}.safetensors"

    def settings(self, run_dir: Path) -> Settings:
        """As a run of ours.

        Both backbones keep their heads, so that every system lowers the same loss, cross-entropy;
        of the default one an accuracy means something: noise has come over the digits it knows.
        """
        common = Settings(
            tasks=f"peers=npz:{self.path}", rounds=self.rounds,
            epochs=self.passes or (1 if self.light else 2), learning_rate=self.rate,
            partition="iid", device="cpu", decay="none", statistics="frozen", probe="none",
            head="backbone", run_dir=str(run_dir),
        )  # fmt: skip
        if self.light:
            return replace(common, backbone=LIGHT, target="layer[12]")
        return replace(common, bank=str(self.bank))


def write(case: Case) -> None:
    """The images of a case, once."""
    count = case.clients * case.images
    if case.light:
        write_images(case.path, count)
        return
    if case.watched:
        load_bank("digits_resnet20").save(case.bank)
    else:
        mimic(load_backbone(Settings.backbone).model, Settings().recast()).save(case.bank)
    data = load_dataset(parse_task(_SHIFTED), _SIZE)
    random, every = np.random.default_rng(0), np.arange(len(data.y_train))
    aside = random.permutation(every)[: len(every) // 3] if case.watched else every[:0]
    clients_own = np.setdiff1d(every, aside)
    chosen = clients_own[random.integers(0, len(clients_own), count)]
    np.savez(
        case.path,
        x_watch=data.x_train[aside], y_watch=data.y_train[aside],
        x_train=data.x_train[chosen], y_train=data.y_train[chosen],
        x_test=data.x_test, y_test=data.y_test,
        classes=np.array([str(name) for name in data.classes]),
    )  # fmt: skip


class Local:
    """A client's work: ``own`` is recast's code for one client, ``plain`` what a user would write.

    Attributes:
        start: the vector that training starts from.
        recipe: rate, batch and passes.
    """

    def __init__(self, case: Case) -> None:
        settings = case.settings(case.folder / "unused")
        loaded = load_backbone(settings.backbone)
        light = mimic(loaded.model, settings.recast()) if case.light else None
        bank = light or TemplateBank.load(case.bank)
        self.net = attach(loaded.model, bank, loaded.head)
        self.recipe = settings.hyperparameters()
        self._preprocess = loaded.preprocess
        split = split_model(self.net, loaded.preprocess.size)
        self._learner = BankLearner(split, loaded.preprocess)
        self.start: Vector = bank.initial_vector.numpy().copy()

    def data(self, case: Case) -> dict[str, Tensor]:
        """The images, uint8, and labels of a case."""
        with np.load(case.path) as held:
            names = ("x_train", "y_train", "x_test", "y_test", "x_watch", "y_watch")
            return {name: torch.from_numpy(held[name]) for name in names if name in held}

    def pixels(self, images: Tensor) -> Tensor:
        """As the backbone takes them, prepared once for all rounds."""
        return self._preprocess(images)

    def own(self, vector: Vector, images: Tensor, labels: Tensor, seed: int) -> Vector:
        """What recast's own client would answer; ``vector`` where it would refuse."""
        try:
            return self._learner.fit(vector, images, labels, CLASSES, self.recipe, seed)[0]
        except RecastError:  # a handful of images of one class
            return vector

    def plain(self, vector: Vector, batches: Batches) -> Vector:
        """AdamW and cross-entropy on the coefficients; the head is the network's."""
        net = self.net
        net.coefficients.load(torch.from_numpy(vector))
        optimizer = torch.optim.AdamW(
            [net.coefficients.flat], lr=self.recipe.learning_rate, weight_decay=0.0
        )
        for _ in range(self.recipe.epochs):
            for x, y in batches():
                optimizer.zero_grad()
                F.cross_entropy(self.logits(x), y).backward()
                optimizer.step()
        trained: Vector = net.coefficients.sent().numpy()
        return trained

    def curve(self, vectors: Iterable[Vector], held: Mapping[str, Tensor]) -> list[float]:
        """The accuracy of each round's vector on the images that no client has."""
        if not len(held.get("y_watch", ())):
            return []
        return [self.accuracy(one, held["x_watch"], held["y_watch"]) for one in vectors]

    @torch.no_grad()
    def accuracy(self, vector: Vector, images: Tensor, labels: Tensor) -> float:
        """Of the common vector with the network's head."""
        self.net.coefficients.load(torch.from_numpy(vector))
        found = [self.logits(part).argmax(1) for part in self.pixels(images).split(256)]
        return float((torch.cat(found) == labels).double().mean())

    def logits(self, x: Tensor) -> Tensor:
        """Of prepared images, with the coefficients as they are."""
        head: nn.Module = self.net.own_head
        logits: Tensor = head(self.net.features(x))
        return logits


class Clock:
    """Seconds of each round: of the wall's clock, and of this process on all processors."""

    def __init__(self) -> None:
        self.rounds: list[float] = []
        self.cpu: list[float] = []
        self._began = (0.0, 0.0)

    def begin(self) -> None:
        """A round begins."""
        self._began = (time.perf_counter(), time.process_time())

    def end(self, seconds: float | None = None) -> None:
        """It has ended, and took ``seconds`` if somebody else has timed it."""
        wall, cpu = self._began
        self.rounds.append(time.perf_counter() - wall if seconds is None else seconds)
        self.cpu.append(time.process_time() - cpu)
