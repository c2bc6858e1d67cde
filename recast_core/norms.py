"""Normalisation layers on a client: frozen, trained locally, or with statistics of its images."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Literal

import torch
from torch import Tensor, nn

from recast_core.errors import RecastError
from recast_core.frozen import batch_statistics
from recast_core.heads.ridge import ridge_head
from recast_core.held_out import split_held_out
from recast_core.layers import TargetLayer
from recast_core.model import RecastModel

Norm = Literal["frozen", "affine", "recompute"]
NORMS: tuple[Norm, ...] = ("frozen", "affine", "recompute")
_BATCH = 256
_KINDS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.LayerNorm, nn.GroupNorm)


def norm_layers(net: RecastModel) -> Iterator[tuple[str, nn.Module]]:
    """The normalisation layers of the backbone by name, but for those that the bank recombines."""
    within = {
        id(inner)
        for layer in net.backbone.modules()
        if isinstance(layer, TargetLayer)
        for inner in layer.modules()
    }
    for name, module in net.backbone.named_modules():
        if isinstance(module, _KINDS) and id(module) not in within:
            yield name, module


def norm_state(net: RecastModel) -> dict[str, Tensor]:
    """Copies of scale, shift and running statistics of ``norm_layers``, by dotted name."""
    return {
        f"{name}.{key}": tensor.detach().clone()
        for name, module in norm_layers(net)
        for key, tensor in module.state_dict().items()
        if tensor.is_floating_point()
    }


@torch.no_grad()
def load_norm(net: RecastModel, state: Mapping[str, Tensor]) -> None:
    """Write what ``norm_state`` or ``Fit.norm`` gave back into ``net``.

    Raises:
        RecastError: a tensor that the model lacks, or of another shape.
    """
    held = {
        f"{name}.{key}": tensor
        for name, module in norm_layers(net)
        for key, tensor in module.state_dict(keep_vars=True).items()
    }
    for path, tensor in state.items():
        if path not in held or held[path].shape != tensor.shape:
            raise RecastError(
                f"the model has no normalisation tensor {path} of shape {list(tensor.shape)}: load "
                "the state into the backbone that it came from"
            )
    for path, tensor in state.items():
        held[path].copy_(tensor)


def affine_parameters(net: RecastModel) -> list[nn.Parameter]:
    """Scales and shifts of ``norm_layers``.

    Raises:
        RecastError: there are none.
    """
    found = [p for _, module in norm_layers(net) for p in module.parameters(recurse=False)]
    if not found:
        raise RecastError('the backbone has no affine normalisation to train: use norm="frozen"')
    return found


def recompute(net: RecastModel, images: Tensor, labels: Tensor, classes: int, seed: int) -> bool:
    """Give BatchNorms the statistics of the client's images if they serve it better.

    Under a shift of the images that gains much, without one it loses some. So statistics of four
    fifths of the images are tried first, by a ridge head on these and its accuracy on the rest;
    only where that rises do all the images give the statistics that stay.

    Args:
        net: in evaluation mode, and left in it.
        images: float32 ``[N, 3, H, W]``.
        labels: int64 ``[N]``.
        classes: of the task.
        seed: of the division.

    Returns:
        Whether the statistics are new.

    Raises:
        RecastError: the backbone has no BatchNorm with running statistics.
    """
    layers = [m for _, m in norm_layers(net) if getattr(m, "running_mean", None) is not None]
    if not layers:
        raise RecastError(
            'the backbone has no BatchNorm statistics to recompute: use norm="frozen" or "affine"'
        )
    parts = split_held_out(labels, seed)
    if parts is None:
        return False
    before = norm_state(net)
    found = _accuracy(net, images, labels, classes, parts)
    _estimate(net, layers, images[parts[0]])
    if _accuracy(net, images, labels, classes, parts) <= found:
        load_norm(net, before)
        return False
    _estimate(net, layers, images)
    return True


@torch.no_grad()
def _features(net: RecastModel, images: Tensor) -> Tensor:
    return torch.cat([net.features(part) for part in images.split(_BATCH)])


def _accuracy(
    net: RecastModel, images: Tensor, labels: Tensor, classes: int, parts: tuple[Tensor, Tensor]
) -> float:
    features = _features(net, images)
    learn, judge = parts
    head = ridge_head(features[learn], labels[learn], classes)
    return float((head(features[judge]).argmax(1) == labels[judge]).double().mean())


def _estimate(net: RecastModel, layers: list[nn.Module], images: Tensor) -> None:
    """The mean of the batches' statistics, which is what ``momentum=None`` accumulates."""
    momenta = [layer.momentum for layer in layers]
    for layer in layers:
        assert isinstance(layer, nn.modules.batchnorm._BatchNorm)
        layer.reset_running_stats()
        layer.momentum = None
    try:
        with torch.no_grad(), batch_statistics(net.backbone):
            for part in torch.tensor_split(images, -(-len(images) // _BATCH)):
                net.features(part)
    finally:
        for layer, momentum in zip(layers, momenta, strict=True):
            layer.momentum = momentum
