"""Normal equations as clients sum them up: what a Gauss-Newton round sends, and its step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from recast_core.wire.codec import decode, encode


@dataclass(frozen=True, eq=False)
class Normal:
    """One client's part of the normal equations, in sums over its images.

    Attributes:
        gradient: of the cross-entropy, float64 ``[D]``.
        matrix: ``J^T (diag(p) - p p^T) J``, float64 ``[D, D]``.
        examples: how many images.
    """

    gradient: Tensor
    matrix: Tensor
    examples: int


def normal_of(logits: Tensor, labels: Tensor, jacobian: Tensor) -> Normal:
    """The sums of images whose logits ``[N, C]`` change by ``jacobian`` ``[N, C, D]``.

    Logits of minus infinity, of classes that cannot be, have no part in them.
    """
    jacobian = jacobian.double()
    p = logits.detach().double().softmax(1)
    residual = p.clone()
    residual[torch.arange(len(p)), labels] -= 1
    centred = jacobian - (p.unsqueeze(-1) * jacobian).sum(1, keepdim=True)
    matrix = torch.einsum("nc,ncd,nce->de", p, centred, centred)
    return Normal(torch.einsum("nc,ncd->d", residual, jacobian), matrix, len(p))


def rounded(normal: Normal, bits: int) -> tuple[Normal, int]:
    """As it arrives in so many bits a number, and its payload in bytes with two scales."""
    count = len(normal.gradient)
    rows, columns = torch.triu_indices(count, count).unbind()
    sent, size = [], 0
    for part in (normal.gradient, normal.matrix[rows, columns]):
        encoded = encode(part.float().numpy(), bits)
        sent.append(torch.from_numpy(decode(encoded, part.numel(), bits)).double())
        size += len(encoded.data) + 4
    matrix = torch.zeros_like(normal.matrix)
    matrix[rows, columns] = sent[1]
    matrix[columns, rows] = sent[1]
    return Normal(sent[0], matrix, normal.examples), size


def step(normals: Sequence[Normal], damping: float) -> Tensor:
    """``-(H + lambda mean(diag H) I)^-1 g`` of the sums: float32 ``[D]``."""
    gradient = sum((n.gradient for n in normals), torch.zeros(()))
    matrix = sum((n.matrix for n in normals), torch.zeros(()))
    ridge = damping * matrix.diagonal().mean() * torch.eye(len(gradient), dtype=torch.float64)
    moved: Tensor = -torch.linalg.solve(matrix + ridge, gradient)
    return moved.float()
