"""BatchNorm statistics of the client's own images, for the early BatchNorms of a model at once.

A new light, lens or sensor changes what the first layers see; which classes a client has changes
what the last ones see. So the first half of the BatchNorms take the client's own statistics and the
others keep theirs: a client with a skewed mix of labels then loses nothing by it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from recast_core.descent import Featured
from recast_core.errors import RecastError
from recast_core.layers import TargetLayer
from recast_core.layers.norm import RecastBatchNorm2d
from recast_core.layers.statistics import BatchStatistics, Merged, ReachedError, moments
from recast_core.model import replace_module
from recast_core.pulse import advance

# So many of a client's images give its statistics: a mean over pixels needs no more.
STATISTICS_IMAGES = 512
# Of a pass that needs no statistics: 512 images of 3 x 104 x 104 numbers.
_NUMBERS_A_PASS = 1 << 24
_OTHERS = (nn.BatchNorm1d, nn.BatchNorm3d, nn.SyncBatchNorm)
# Of the BatchNorms, in the order in which the network names them.
_EARLY = 0.5


def own_statistics(backbone: nn.Module) -> BatchStatistics | None:
    """One switch for the early BatchNorms of ``backbone``, which is changed in place.

    Args:
        backbone: attached or not; early BatchNorms that no bank recombines become target layers
            without coefficients, so that what they normalise by can be chosen for each client.

    Returns:
        The switch, off; ``None`` where there is no BatchNorm, as in a transformer.

    Raises:
        RecastError: a kind of BatchNorm, or one without running statistics, that has no such
            layer; named.
    """
    for name, module in backbone.named_modules():
        if isinstance(module, _OTHERS):
            raise RecastError(
                f"{name} is a {type(module).__name__}: only BatchNorm2d can take statistics of a "
                "client's own images, use --statistics frozen"
            )
    statistics = BatchStatistics()
    early = early_norms(backbone)
    for name in early:
        module = backbone.get_submodule(name)
        if isinstance(module, nn.BatchNorm2d):
            module = RecastBatchNorm2d(module, {})
            replace_module(backbone, name, module)
        assert isinstance(module, RecastBatchNorm2d)
        module.statistics = statistics
    return statistics if early else None


def early_norms(backbone: nn.Module) -> list[str]:
    """Names of the BatchNorms that may take a client's own statistics: the first half, rounded up.

    Args:
        backbone: attached or not.
    """
    norms = [
        name
        for name, module in backbone.named_modules()
        if isinstance(module, RecastBatchNorm2d)
        or (isinstance(module, nn.BatchNorm2d) and not _stands_in(backbone, name))
    ]
    return norms[: math.ceil(_EARLY * len(norms))]


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
    """Features of images, normalised by the statistics of others.

    Args:
        features: of inputs ``[N, ...]``: ``[N, d]``.
        statistics: of the model's BatchNorms.
        inputs: of the images that give the statistics, and of those that are wanted.
        batch: of either in a pass; fewer where they are large.

    Returns:
        ``[N, d]``.
    """
    by, wanted = inputs
    tape, first = tape_of(features, statistics, by, batch)
    batch = _in_a_pass(wanted, batch)
    found = [first[:0]]
    for part in wanted.split(batch) if len(wanted) else ():
        with statistics.again(tape, torch.ones(len(part), device=by.device)):
            found.append(features(part))
        advance(len(part))
    return torch.cat(found)


@torch.no_grad()
def tape_of(
    features: Callable[[Tensor], Tensor],
    statistics: BatchStatistics,
    by: Tensor,
    batch: int = STATISTICS_IMAGES,
) -> tuple[list[tuple[Tensor, Tensor]], Tensor]:
    """What each BatchNorm normalises by in a pass over all of ``by``, and features of some of it.

    Images that are too large for one pass are shown in parts. A BatchNorm's input depends on the
    statistics of those before it, so all parts go up to the first, whose statistics over all of
    them follow, then up to the second, and so on: the same numbers as of one pass, for which L
    BatchNorms take about L/2 times as long, in bounded memory.

    Args:
        features: of inputs ``[N, ...]``: ``[N, d]``.
        statistics: of the model's BatchNorms.
        by: inputs of the images that give the statistics, one at least.
        batch: of them in a pass; fewer where they are large.
    """
    parts = by.split(_in_a_pass(by, batch))
    if len(parts) == 1:
        with statistics.kept(torch.ones(len(by), device=by.device)) as tape:
            return tape, features(by)
    tape = []
    while True:
        merged = Merged()
        for part in parts:
            try:
                with statistics.next_after(tape, torch.ones(len(part), device=part.device)):
                    return tape, features(part)
            except ReachedError as reached:
                merged.add(reached.found, len(part))
            advance(0)  # whoever is told to end need not wait for the last layer
        tape.append(merged.result(by))


def _in_a_pass(inputs: Tensor, most: int) -> int:
    """How many of these inputs go through the network at once."""
    return max(1, min(most, _NUMBERS_A_PASS // max(1, inputs[:1].numel())))


@torch.no_grad()
def adopt_statistics(model: nn.Module, images: Tensor) -> bool:
    """Write the statistics of images into the early BatchNorms of a plain model, layer by layer.

    Args:
        model: in evaluation mode; changed in place, and left in that mode.
        images: float32 ``[N, 3, H, W]``, of which an even choice gives the statistics.

    Returns:
        Whether there was a BatchNorm to write into.
    """
    every = (model.get_submodule(name) for name in early_norms(model))
    norms = [module for module in every if isinstance(module, nn.BatchNorm2d)]
    chosen = spread_choice(len(images))
    parts = chosen.split(_in_a_pass(images, len(chosen)))
    if norms and len(parts) > 1:
        _adopt_in_parts(model, norms, images, parts)
    elif norms:
        _adopt_at_once(model, norms, images[chosen])
    return bool(norms)


def _adopt_at_once(model: nn.Module, norms: Sequence[nn.BatchNorm2d], images: Tensor) -> None:
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = 1.0
        nn.Module.train(norm)
    try:
        model(images)
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
            norm.eval()


def _adopt_in_parts(
    model: nn.Module, norms: Sequence[nn.BatchNorm2d], images: Tensor, parts: Sequence[Tensor]
) -> None:
    """As ``tape_of`` does it: all parts up to one BatchNorm after another."""
    done: dict[nn.BatchNorm2d, float] = {}
    reached: list[nn.BatchNorm2d] = []

    def look(norm: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        if norm not in done:
            assert isinstance(norm, nn.BatchNorm2d)
            reached.append(norm)
            rows = inputs[0]
            found = moments(rows, torch.ones(len(rows), device=rows.device))
            raise ReachedError(found, rows.numel() // rows.shape[1])

    hooks = [norm.register_forward_pre_hook(look) for norm in norms]
    try:
        while len(done) < len(norms):
            merged, pixels = Merged(), 0
            for rows in parts:
                try:
                    model(images[rows])
                    return  # the others are in no path
                except ReachedError as error:
                    merged.add(error.found, len(rows))
                    pixels += error.pixels
                advance(0)
            norm = reached[-1]
            assert norm.running_mean is not None
            assert norm.running_var is not None
            mean, variance = merged.result(norm.running_mean)
            norm.running_mean.copy_(mean)
            norm.running_var.copy_(variance)
            done[norm] = pixels / max(1, pixels - 1)
    finally:
        # Layers are fed what the plain variance gives; what PyTorch keeps is the unbiased one.
        for norm, unbiased in done.items():
            assert norm.running_var is not None
            norm.running_var.mul_(unbiased)
        for hook in hooks:
            hook.remove()


def spread_choice(count: int, images: int = STATISTICS_IMAGES) -> Tensor:
    """Which of ``count`` images give the statistics: int64, at most ``images``, evenly spread."""
    if count <= images:
        return torch.arange(count)
    return torch.linspace(0, count - 1, images).long()


def _stands_in(backbone: nn.Module, name: str) -> bool:
    """Whether the module is what a target layer stands for."""
    parent = name.rpartition(".")[0]
    return isinstance(backbone.get_submodule(parent), TargetLayer)
