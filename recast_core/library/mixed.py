"""A batch of several tasks in one forward pass."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from recast_core.model import RecastModel


def block_size(counts: Sequence[int]) -> int:
    """How many rows a block of the client axis should hold.

    A task with r rows takes ``ceil(r / b)`` blocks, the last one padded. Small blocks pad less and
    recombine more weights; recombining one block's weights costs about what one more row does
    (measured on ViT-Small), so the sum of rows and blocks is made least.

    Args:
        counts: rows of each task, each at least 1.
    """

    def cost(size: int) -> int:
        blocks = sum(-(-count // size) for count in counts)
        return blocks * (size + 1)

    return min(range(1, max(counts) + 1), key=cost)


@torch.no_grad()
def mixed_features(
    net: RecastModel,
    images: Tensor,
    coefficients: Sequence[Tensor],
    rows: Sequence[Sequence[int]],
) -> Tensor:
    """Features of a batch in which every task's rows meet that task's coefficients.

    Args:
        net: not changed; other threads may use it meanwhile.
        images: ``[N, 3, H, W]``.
        coefficients: for each task ``[D]``.
        rows: for each task the indices of its rows; every row once.

    Returns:
        ``[N, d]`` in the order of ``images``.
    """
    if not rows:
        return net.features(images)
    size = block_size([len(indices) for indices in rows])
    gathered: list[int] = []
    vectors: list[Tensor] = []
    for vector, indices in zip(coefficients, rows, strict=True):
        blocks = -(-len(indices) // size)
        # Padding repeats a row: it is finite, and its result is not read.
        gathered += [*indices, *[indices[-1]] * (blocks * size - len(indices))]
        vectors += [vector] * blocks
    order = torch.tensor(gathered, device=images.device)
    with net.coefficients.using(torch.stack(vectors)):
        blocked = net.features(images[order])
    features = blocked.new_empty(len(images), *blocked.shape[1:])
    # Repeated rows are written more than once, each time with the same values.
    features[order] = blocked
    return features
