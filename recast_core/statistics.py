"""BatchNorm statistics of the client's own images, for every BatchNorm of a model at once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from recast_core.descent import Featured
from recast_core.errors import RecastError
from recast_core.layers import TargetLayer
from recast_core.layers.norm import RecastBatchNorm2d
from recast_core.layers.statistics import BatchStatistics
from recast_core.model import replace_module
from recast_core.pulse import advance

# So many of a client's images give its statistics: a mean over pixels needs no more.
STATISTICS_IMAGES = 512
# Of a pass that needs no statistics: 512 images of 3 x 104 x 104 numbers.
_NUMBERS_A_PASS = 1 << 24
_OTHERS = (nn.BatchNorm1d, nn.BatchNorm3d, nn.SyncBatchNorm)


def own_statistics(backbone: nn.Module) -> BatchStatistics | None:
    """One switch for all BatchNorms of ``backbone``, which is changed in place.

    Args:
        backbone: attached or not; BatchNorms that no bank recombines become target layers without
            coefficients, so that what they normalise by can be chosen for each client.

    Returns:
        The switch, off; ``None`` where there is no BatchNorm, as in a transformer.

    Raises:
        RecastError: a kind of BatchNorm, or one without running statistics, that has no such
            layer; named.
    """
    statistics = BatchStatistics()
    found = False
    for name, module in [*backbone.named_modules()]:
        if isinstance(module, _OTHERS):
            raise RecastError(
                f"{name} is a {type(module).__name__}: only BatchNorm2d can take statistics of a "
                "client's own images, use --statistics frozen"
            )
        if isinstance(module, RecastBatchNorm2d):
            module.statistics, found = statistics, True
        elif isinstance(module, nn.BatchNorm2d) and not _stands_in(backbone, name):
            layer = RecastBatchNorm2d(module, {})
            layer.statistics, found = statistics, True
            replace_module(backbone, name, layer)
    return statistics if found else None


@dataclass(frozen=True)
class ByBatch:
    """A model whose BatchNorms normalise by the images that it is shown together."""

    model: Featured
    statistics: BatchStatistics

    def features(self, images: Tensor) -> Tensor:
        """``[N, d]`` of images ``[N, 3, H, W]``."""
        with self.statistics.of(torch.ones(len(images), device=images.device)):
            return self.model.features(images)


@torch.no_grad()
def features_by(
    features: Callable[[Tensor], Tensor],
    statistics: BatchStatistics,
    inputs: tuple[Tensor, Tensor],
    batch: int = STATISTICS_IMAGES,
) -> Tensor:
    """Features of images, normalised by the statistics of others, which are shown once.

    Args:
        features: of inputs ``[N, ...]``: ``[N, d]``.
        statistics: of the model's BatchNorms.
        inputs: of the images that give the statistics, and of those that are wanted.
        batch: of the latter in a pass; fewer where they are large.

    Returns:
        ``[N, d]``.
    """
    by, wanted = inputs
    with statistics.kept(torch.ones(len(by), device=by.device)) as tape:
        first = features(by)
    batch = max(1, min(batch, _NUMBERS_A_PASS // max(1, wanted[:1].numel())))
    found = [first[:0]]
    for part in wanted.split(batch) if len(wanted) else ():
        with statistics.again(tape, torch.ones(len(part), device=by.device)):
            found.append(features(part))
        advance(len(part))
    return torch.cat(found)


@torch.no_grad()
def adopt_statistics(model: nn.Module, images: Tensor) -> bool:
    """Write the statistics of images into the BatchNorms of a plain model, layer after layer.

    Args:
        model: in evaluation mode; changed in place, and left in that mode.
        images: float32 ``[N, 3, H, W]``, of which an even choice gives the statistics.

    Returns:
        Whether there was a BatchNorm to write into.
    """
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = 1.0
        nn.Module.train(norm)
    try:
        if norms:
            model(images[spread_choice(len(images))])
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
            norm.eval()
    return bool(norms)


def spread_choice(count: int, images: int = STATISTICS_IMAGES) -> Tensor:
    """Which of ``count`` images give the statistics: int64, at most ``images``, evenly spread."""
    if count <= images:
        return torch.arange(count)
    return torch.linspace(0, count - 1, images).long()


def _stands_in(backbone: nn.Module, name: str) -> bool:
    """Whether the module is what a target layer stands for."""
    parent = name.rpartition(".")[0]
    return isinstance(backbone.get_submodule(parent), TargetLayer)
