"""Networks of random weights with clients of equal size: what folded training is timed on."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from recast_core.backbones import Preprocess
from recast_core.backbones.cifar_resnet import CifarResNet
from recast_core.bank import TemplateBank
from recast_core.config import RecastConfig
from recast_core.folded import (
    BankFold,
    Chunking,
    FoldedClient,
    Graphs,
    How,
    ImageStore,
    SplitModel,
    split_model,
    train,
)
from recast_core.learner import BankLearner
from recast_core.mimicry import mimic
from recast_core.model import attach
from recast_core.objectives import SplitRidge
from recast_core.recipe import Recipe

CLASSES = 10
OBJECTIVE = SplitRidge(CLASSES)
LEARNING_RATE = 1e-2
_IMAGES = 4096


def networks() -> dict[str, tuple[Callable[[], nn.Module], RecastConfig, int]]:
    """By name: how to build it, what of it is a target, and pixels a side."""
    from torchvision.models import VisionTransformer

    return {
        "vit-d128x6": (
            lambda: VisionTransformer(32, 4, 6, 4, 128, 512, num_classes=CLASSES),
            RecastConfig("mlp", groups=3),
            32,
        ),
        "vit-small": (
            lambda: VisionTransformer(32, 4, 12, 6, 384, 1536, num_classes=CLASSES),
            RecastConfig("mlp", groups=6),
            32,
        ),
        "resnet20": (lambda: CifarResNet(20, CLASSES), RecastConfig("conv"), 16),
    }


@dataclass(frozen=True)
class Variant:
    """How clients are folded.

    Attributes:
        half: bfloat16 products.
        compiled: ``torch.compile``.
        graph: the step is captured as a CUDA graph, of however many images.
    """

    half: bool = False
    compiled: bool = False
    graph: bool = False

    @classmethod
    def named(cls, name: str) -> Variant:
        """``fp32`` or ``bf16``, then ``+compile`` and ``+graph`` where wanted."""
        return cls("bf16" in name, "compile" in name, "graph" in name)


class Bench:
    """One network with clients of equal size on one device."""

    def __init__(self, name: str, device: torch.device, images: int, batch: int) -> None:
        build, config, size = networks()[name]
        torch.manual_seed(0)
        backbone = build()
        bank: TemplateBank = mimic(backbone, config)
        net = attach(backbone, bank).to(device)
        self.pixels = torch.randint(0, 256, (_IMAGES, size, size, 3), dtype=torch.uint8)
        self.model: SplitModel = split_model(net, size)
        self.learner = BankLearner(self.model, Preprocess(size))
        self.store = ImageStore(self.pixels, Preprocess(size), self.model.prefix, device)
        self.images, self.batch, self.device, self.bank = images, batch, device, bank
        self.recipe = Recipe(1, batch, LEARNING_RATE)
        self.name, self.on_gpu = name, device.type == "cuda"
        self._folds: dict[Variant, tuple[BankFold, Graphs | None]] = {}
        generator = torch.Generator().manual_seed(1)
        self.rows = torch.randint(0, _IMAGES, (20_000, images), generator=generator)
        self.labels = torch.randint(0, CLASSES, (20_000, images), generator=generator)
        self.store.ensure(torch.arange(_IMAGES))

    def clients(self, count: int) -> list[FoldedClient]:
        """The first ``count`` clients."""
        return [FoldedClient(self.rows[i], self.labels[i], seed=i) for i in range(count)]

    def together(
        self, count: int, chunk: int = 0, variant: Variant = Variant()
    ) -> tuple[float, Tensor, Chunking]:
        """Seconds per client, the coefficients, and how they were divided."""
        chunking = Chunking(chunk or None)
        if variant not in self._folds:
            # Kept, since one that compiles or captures does so once.
            made = BankFold(self.model, variant.half, variant.compiled)
            self._folds[variant] = made, Graphs(1 << 20, 2) if variant.graph else None
        fold, graphs = self._folds[variant]
        began = self.now()
        found = train(
            fold, self.store, self.clients(count), OBJECTIVE, self.recipe,
            how=How(chunking, graphs=graphs),
        )  # fmt: skip
        seconds = (self.now() - began) / count
        if graphs is not None and graphs.failed:
            raise RuntimeError(f"no CUDA graph: {graphs.failed}")
        return seconds, found.coefficients, chunking

    def now(self) -> float:
        """Seconds, once the device has done what it was told."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()

    def operations(self, clients: int) -> float:
        """Floating-point operations of one client's training, counted on ``clients``."""
        counter = FlopCounterMode(display=False)
        with counter:
            self.together(clients, chunk=clients)
        return counter.get_total_flops() / clients
