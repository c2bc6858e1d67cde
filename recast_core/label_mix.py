"""The label mix of a client: what its labels say of it, and its predictions where it has none.

A deployed network in a new domain has habits: it takes for an 8 what it cannot make out. The mean
prediction over a client's images therefore mixes up what the client has with what the network does.
What it does, it does for all clients alike, so the fleet's mean prediction shows it. Where the
fleet as a whole has every class about as often, a client has more of a class than others do by as
much as it is predicted more often than in the fleet. Estimating a mix from a client's own
predictions alone (by EM, Saerens et al. 2002) confirms the habits instead.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from recast_core.wire.messages import RefusedError

# Times its even part that every class is expected to have at least: a client may have what was
# never predicted.
_LEAST = 0.1
_LEVELS = 255


def mean_prediction(logits: Tensor) -> Tensor:
    """The mean of the predictions of logits ``[N, C]``: float32 ``[C]``."""
    return logits.float().softmax(1).mean(0)


def counted_mix(labels: Tensor, classes: int) -> Tensor:
    """The label mix that a client's labels ``[n]`` make likely: float32 ``[C]``, none of it 0.

    It is as if each class had been seen once more (Laplace's rule of succession), so that few
    labels say little.
    """
    counts = torch.bincount(labels, minlength=classes).float() + 1
    return counts / counts.sum()


def expected_mix(own: Tensor, fleet: Tensor) -> Tensor:
    """The label mix that a client's predictions should come to: float32 ``[C]``.

    Args:
        own: the client's mean prediction, float32 ``[C]``.
        fleet: that of all clients.
    """
    even = 1 / len(fleet)
    fair = (even + own - fleet).clamp_min(_LEAST * even)
    return fair / fair.sum()


def pack_mix(mix: Tensor) -> bytes:
    """A mix ``[C]`` as a byte for each class: small parts matter, so roots are rounded."""
    return bytes((_LEVELS * mix.clamp(0, 1).sqrt()).round().to(torch.uint8).tolist())


def unpack_mix(content: bytes, classes: int) -> Tensor:
    """What ``pack_mix`` wrote: float32 ``[C]``, of sum 1.

    Raises:
        RefusedError: ``malformed``, of another number of classes, or of nothing.
    """
    if len(content) != classes or not any(content):
        raise RefusedError("malformed", f"a label mix of {len(content)} bytes, {classes} classes")
    roots = torch.tensor(list(content), dtype=torch.float32)
    return roots.square() / roots.square().sum()


def fleet_mix(mixes: list[bytes], weights: list[int]) -> bytes:
    """The mean of clients' mixes, of equal length, by their weights; in any order the same bits."""
    parts = np.array([list(mix) for mix in mixes], dtype=np.int64) ** 2
    shares = (parts / parts.sum(1, keepdims=True) * np.array(weights)[:, None]).round(9)
    total = np.sort(shares, axis=0).sum(0)
    return pack_mix(torch.from_numpy(total / total.sum()).float())
