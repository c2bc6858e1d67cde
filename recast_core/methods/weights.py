"""The weights that a method moves, and moving them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from recast_core.errors import RecastError
from recast_core.layers import TargetLayer
from recast_core.methods.edits import matching, original, weight_of
from recast_core.targets import patterns_of


@dataclass(frozen=True)
class Site:
    """A weight that a method moves.

    Attributes:
        name: of its module, as in the backbone before attaching.
        path: its present name.
        tensor: the weight's name in the module.
        shape: of the weight.
        blocks: matrices that are stacked in its rows: 3 for packed query, key and value, else 1.
        weight: as it is, float32 ``[blocks, rows, fan_in]``.
    """

    name: str
    path: str
    tensor: str
    shape: torch.Size
    blocks: int
    weight: Tensor


def weight_sites(backbone: nn.Module, target: str | tuple[str, ...], method: str) -> Iterator[Site]:
    """The weights of target modules, in model order.

    Raises:
        RecastError: the backbone has none, or an attention without a packed weight.
    """
    found = matching(
        backbone,
        patterns_of(target),
        (nn.MultiheadAttention, nn.Linear, nn.Conv2d),
        f"{method} finds no target {target!r} in the backbone: choose target='conv' for a "
        "ResNet, 'attn' or 'mlp' for a transformer",
    )
    for name, path, module in found:
        plain = original(module)
        of = weight_of(module)
        if of is None:
            raise RecastError(f"attention {name!r} has no packed weight: target another")
        tensor, shape = of
        packed = isinstance(plain, nn.MultiheadAttention) or (
            name.endswith("qkv") and shape[0] == 3 * shape[1]
        )
        blocks = 3 if packed else 1
        value = module.tensor(tensor) if isinstance(module, TargetLayer) else getattr(plain, tensor)
        matrix = value.detach().float().reshape(blocks, shape[0] // blocks, -1)
        yield Site(name, path, tensor, shape, blocks, matrix)


def added(weight: Tensor, delta: Tensor) -> Tensor:
    """``weight`` moved by ``delta [rows, fan_in]``; its client axis is broadcast over."""
    return weight + delta.view(weight.shape[-4:] if weight.dim() > 3 else weight.shape[-2:])
