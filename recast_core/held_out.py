"""A part of one client's images that fitting does not learn from."""

from __future__ import annotations

import torch
from torch import Tensor

SHARE = 5


def split_held_out(labels: Tensor, seed: int) -> tuple[Tensor, Tensor] | None:
    """Divide a client's images into those to learn from and a fifth to judge by.

    Args:
        labels: int64 ``[N]``.
        seed: of the division.

    Returns:
        Two index vectors, on the device of ``labels``; ``None`` where one part would be empty or
        the other have one class only, so that nothing could be judged.
    """
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(labels), generator=generator).to(labels.device)
    count = len(labels) // SHARE
    learn, judge = order[count:], order[:count]
    if count == 0 or len(labels[learn].unique()) < 2:
        return None
    return learn, judge
