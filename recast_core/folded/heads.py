"""The local ridge heads of many clients in one solve."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from recast_core.heads.ridge import PENALTIES

# Numbers in one padded batch of features: bounds the memory, not the result.
_BATCH_NUMBERS = 1 << 24
_PADDING = 1.25
_ABSENT = -1e4


@dataclass(frozen=True, eq=False)
class Judged:
    """One client's rows of a table of features, to fit a head on and to measure it by.

    Attributes:
        learn: int64 ``[n]`` rows to fit on, n >= 1.
        learn_labels: int64 ``[n]``, global class ids.
        judge: int64 ``[m]`` rows to predict.
        judge_labels: int64 ``[m]``.
    """

    learn: Tensor
    learn_labels: Tensor
    judge: Tensor
    judge_labels: Tensor


def count_correct(features: Tensor, clients: Sequence[Judged]) -> list[int]:
    """How many images each client's own ridge head gets right.

    The same head as ``recast_core.heads.ridge.ridge_head``, fitted for clients of similar size at
    once: padded rows of zeros add zero eigenvalues, which are dropped.

    Args:
        features: float32 ``[N, d]``.
        clients: whose rows index it; index tensors on the CPU.
    """
    correct = [0] * len(clients)
    for bucket in _buckets(clients, features.shape[1]):
        for at, count in zip(bucket, _count(features, [clients[i] for i in bucket]), strict=True):
            correct[at] = count
    return correct


def _buckets(clients: Sequence[Judged], width: int) -> list[list[int]]:
    order = sorted(range(len(clients)), key=lambda i: (len(clients[i].learn), i))
    buckets: list[list[int]] = []
    smallest = 0
    for index in order:
        size = len(clients[index].learn)
        full = buckets and (len(buckets[-1]) + 1) * size * max(size, width) > _BATCH_NUMBERS
        if not buckets or full or size > max(_PADDING * smallest, smallest + 2):
            buckets.append([])
            smallest = size
        buckets[-1].append(index)
    return buckets


def _padded(rows: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Rows ``[J, n]`` padded with 0, and which of them are real."""
    padded = torch.nn.utils.rnn.pad_sequence(list(rows), batch_first=True)
    sizes = torch.tensor([len(r) for r in rows])
    return padded, torch.arange(padded.shape[1]) < sizes.unsqueeze(1)


@torch.no_grad()
def _count(features: Tensor, clients: Sequence[Judged]) -> list[int]:
    device = features.device
    rows, real = _padded([c.learn for c in clients])
    uniques = [c.learn_labels.unique(return_inverse=True) for c in clients]
    names, _ = _padded([present for present, _ in uniques])
    width = torch.tensor([len(present) for present, _ in uniques]).unsqueeze(1)
    columns, _ = _padded([own for _, own in uniques])
    one_hot = torch.nn.functional.one_hot(columns, names.shape[1]).double()
    mask = real.to(device).double().unsqueeze(2)
    absent = (torch.arange(names.shape[1]) >= width).to(device)
    weight, bias = _ridge(features[rows.to(device)].double(), one_hot.to(device) * mask, mask)
    weight, bias = weight.float(), bias.float().masked_fill(absent, _ABSENT)
    judged, counted = _padded([c.judge for c in clients])
    wanted, _ = _padded([c.judge_labels for c in clients])
    if judged.shape[1] == 0:
        return [0] * len(clients)
    scores = features[judged.to(device)] @ weight + bias.unsqueeze(1)
    predicted = names.gather(1, scores.argmax(2).cpu())
    totals: list[int] = ((predicted == wanted) & counted).sum(1).tolist()
    return totals


def _ridge(x: Tensor, y: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Weights ``[J, d, C]`` and biases ``[J, C]`` from ``x [J, n, d]``, ``y [J, n, C]``."""
    n = mask.sum(1, keepdim=True)
    # Padding points at a row that may never have been computed, and NaN times nothing is NaN.
    x = torch.where(mask > 0, x, torch.zeros_like(x))
    mean_x, mean_y = x.sum(1, keepdim=True) / n, y.sum(1, keepdim=True) / n
    x, y = (x - mean_x) * mask, (y - mean_y) * mask
    u, s, v = _thin_svd(x)
    projected = u.transpose(1, 2) @ y
    power = (x.square().sum((1, 2)) / n[:, 0, 0]).clamp_min(1e-12)
    best = torch.full_like(power, PENALTIES[0])
    best_error = torch.full_like(power, float("inf"))
    for penalty in PENALTIES:
        shrink = s.square() / (s.square() + penalty * power.unsqueeze(1))
        fitted = u @ (shrink.unsqueeze(2) * projected)
        leverage = u.square() @ shrink.unsqueeze(2) + 1 / n
        left = (y - fitted) / (1 - leverage).clamp_min(1e-6) * mask
        error = left.square().sum((1, 2))
        better = error < best_error
        best = torch.where(better, torch.full_like(best, penalty), best)
        best_error = torch.where(better, error, best_error)
    scale = s / (s.square() + (best * power).unsqueeze(1))
    weight = v @ (scale.unsqueeze(2) * projected)
    return weight, (mean_y - mean_x @ weight).squeeze(1)


def _thin_svd(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """``u [J, n, r]``, ``s [J, r]``, ``v [J, d, r]``, zero where a singular value is negligible."""
    wide = x.shape[1] <= x.shape[2]
    small = x @ x.transpose(1, 2) if wide else x.transpose(1, 2) @ x
    values, vectors = torch.linalg.eigh(small)
    keep = (values > values[:, -1:].clamp_min(1e-30) * 1e-12).unsqueeze(1)
    vectors = vectors * keep
    s = torch.where(keep[:, 0], values.clamp_min(0), torch.zeros_like(values)).sqrt()
    scaled = vectors / torch.where(keep, s.unsqueeze(1), torch.ones_like(vectors[:, :1]))
    if wide:
        return vectors, s, x.transpose(1, 2) @ scaled
    return x @ scaled, s, vectors
