"""``split_ridge_loss`` of many clients at once."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from recast_core.objective import LOGIT_SCALE, PENALTY

# The logit of a class that the support lacks: exp() of it is 0, and its gradient finite.
_ABSENT = -1e9


def folded_loss(features: Tensor, labels: Tensor, real: Tensor) -> Tensor:
    """The split-ridge loss of each client's batch.

    Padding changes nothing: a padded support row is a row of zeros, whose dual coefficient is
    zero whatever the others are, and a padded query row is not counted.

    Args:
        features: float32 ``[J, 2, H, d]``, the two halves of each batch, padded to H rows.
        labels: int64 ``[J, 2, H]`` in ``[0, C)``, with class ids of the client's own.
        real: float32 one-hot labels ``[J, 2, H, C]``, zero in padded rows.

    Returns:
        ``[J]``: the loss as ``recast_core.objective.split_ridge_loss`` defines it, 0 where that is
        ``None``.
    """
    features, labels, real = _aligned(features, labels, real)
    mask = real.sum(-1)
    count = mask.sum(-1).clamp_min(1)[..., None, None]
    present = real.sum(-2) > 0
    # The support of half s is scored on the other half: flip(1) is the query.
    known = torch.flip(real * present.flip(1).unsqueeze(-2), (1,)).sum(-1)
    usable = (present.sum(-1) > 1) & (known.sum(-1) > 0)

    mean_x = (features * mask.unsqueeze(-1)).sum(-2, keepdim=True) / count
    mean_y = real.sum(-2, keepdim=True) / count
    x = (features - mean_x) * mask.unsqueeze(-1)
    y = (real - mean_y) * mask.unsqueeze(-1)
    power = x.square().sum((-2, -1)) / count[..., 0, 0]
    ridge = torch.where(usable, PENALTY * power, torch.ones_like(power))
    eye = torch.eye(x.shape[-2], dtype=x.dtype, device=x.device)
    gram = x @ x.transpose(-1, -2) + ridge[..., None, None] * eye
    # Not checked: that would wait for the device, and a client that diverged is found at the end.
    dual = torch.linalg.solve_ex(gram, y).result
    query = features.flip(1) - mean_x
    scores = (query @ x.transpose(-1, -2)) @ dual + mean_y
    logits = (LOGIT_SCALE * scores).masked_fill(~present.unsqueeze(-2), _ABSENT)
    chosen = torch.log_softmax(logits, -1).gather(-1, labels.flip(1).unsqueeze(-1)).squeeze(-1)
    errors = torch.where(known > 0, -chosen, torch.zeros_like(chosen)).sum(-1)
    halves = torch.where(usable, errors / known.sum(-1).clamp_min(1), torch.zeros_like(errors))
    return halves.sum(-1) / usable.sum(-1).clamp_min(1)


def _aligned(features: Tensor, labels: Tensor, real: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The same, padded so that every client's matrices begin on a cache line.

    Products and reductions of a CPU sum in another order where a matrix begins elsewhere: without
    this a client's last bits would depend on its place in the chunk.
    """
    rows, classes = -labels.shape[2] % 8, -real.shape[3] % 4
    if not rows and not classes:
        return features, labels, real
    return (
        F.pad(features, (0, 0, 0, rows)),
        F.pad(labels, (0, rows)),
        F.pad(real, (0, classes, 0, rows)),
    )
