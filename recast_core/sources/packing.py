"""Make directions small: a common low rank for the directions of a weight, and a few bits."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from recast_core.errors import RecastError
from recast_core.packed import BITS, Packed, packed_bytes, unfold, unfolded

# Of vectors (norms and biases), which are small and move everything.
_VECTOR_BITS = 8
_CLIPS = torch.linspace(0.45, 1.0, 12).tolist()
_REFITS = 3
_TINY = 1e-28


def pack_directions(
    stacks: Mapping[str, Tensor], rank: int, bits: int, device: torch.device | None = None
) -> dict[str, Packed]:
    """Directions as integers, in as many bytes as rank ``rank`` of each direction would take.

    The n directions of a weight are unfolded to one matrix (see ``Packed``), so that they share the
    factors of its longer side: at equal size that leaves a quarter less error than factors of their
    own. Bytes go to the weights and ranks where they save most error.

    Args:
        stacks: by tensor name, float32 ``[n, *shape]``.
        rank: of one direction of one weight, on average.
        bits: of a factor's entries; vectors have 8.
        device: where the work happens.

    Raises:
        RecastError: a rank below 1, or bits that no file holds.
    """
    if rank < 1:
        raise RecastError(f"rank is {rank}: give at least 1")
    if bits not in BITS:
        raise RecastError(f"{bits} bits: give {BITS[0]} to {BITS[-1]}")
    device = device or torch.device("cpu")
    packed: dict[str, Packed] = {}
    decomposed: dict[str, tuple[Tensor, Tensor]] = {}
    for name, stack in stacks.items():
        if stack.dim() < 3:
            packed[name] = _direct(stack, _VECTOR_BITS)
        else:
            decomposed[name] = _leading(unfold(stack.to(device)), 3 * _even_rank(stack, rank) + 8)
    ranks = _allocate({name: s for name, (s, _) in decomposed.items()}, stacks, rank, bits)
    for name, (_, right) in decomposed.items():
        stack, size = stacks[name], tuple(stacks[name].shape)
        if packed_bytes(size, bits, ranks[name]) < packed_bytes(size, bits, 0):
            packed[name] = _factors(stack.to(device), right[:, : ranks[name]], bits)
        else:
            packed[name] = _direct(stack, bits)
    return {name: packed[name] for name in stacks}


def _even_rank(stack: Tensor, rank: int) -> int:
    """The common rank that costs what ``rank`` of each direction would."""
    count, out, rest = stack.shape[0], stack.shape[1], math.prod(stack.shape[2:])
    return max(1, count * rank * (out + rest) // sum(unfolded(tuple(stack.shape))))


def _leading(matrix: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """Leading singular values ``[r]`` and right vectors ``[columns, r]``, float64."""
    rank = min(rank, *matrix.shape)
    if 4 * rank < min(matrix.shape):
        with torch.random.fork_rng([matrix.device] if matrix.is_cuda else []):
            torch.manual_seed(0)
            _, values, right = torch.svd_lowrank(matrix, q=rank + 8, niter=4)
        return values[:rank].double(), right[:, :rank].double()
    _, values, rows = torch.linalg.svd(matrix.double(), full_matrices=False)
    return values[:rank], rows[:rank].T


def _allocate(
    values: Mapping[str, Tensor], stacks: Mapping[str, Tensor], rank: int, bits: int
) -> dict[str, int]:
    """A rank for each weight: the products that save most squared error for a byte, at least one.

    Weights that full rank would not make larger stay out of it: they are written directly.
    """
    budget = 0.0
    offers: list[tuple[float, float, str]] = []
    for name, own in values.items():
        size = tuple(stacks[name].shape)
        budget += size[0] * rank * (size[1] + math.prod(size[2:])) * bits / 8
        cost = sum(unfolded(size)) * bits / 8 + 2
        offers += [(float(value) ** 2 / cost, cost, name) for value in own]
    ranks = dict.fromkeys(values, 0)
    for _, cost, name in sorted(offers, key=lambda offer: -offer[0]):
        if cost <= budget or not ranks[name]:
            budget -= cost
            ranks[name] += 1
    return ranks


def _factors(stack: Tensor, right: Tensor, bits: int) -> Packed:
    """Integers whose products are as near to the unfolded ``stack`` as alternate fits bring them.

    Each factor in turn is fitted to the matrix with the other one as it was rounded, so that it
    makes up for that rounding.
    """
    matrix = unfold(stack).double()
    columns, column_steps = _rounded(right, bits)
    rows, row_steps = _rounded(_fit(matrix, columns * column_steps), bits)
    for _ in range(_REFITS):
        columns, column_steps = _rounded(_fit(matrix.T, rows * row_steps), bits)
        rows, row_steps = _rounded(_fit(matrix, columns * column_steps), bits)
    steps = (row_steps * column_steps).cpu()
    scale = np.float32(float(steps.max()) / 65535)
    if scale < _TINY:
        return _direct(torch.zeros_like(stack), bits)
    multipliers = (steps / float(scale)).round().clamp(0, 65535).numpy().astype(np.uint16)
    return Packed.factors(
        tuple(stack.shape),
        bits,
        multipliers,
        rows.cpu().numpy().astype(np.int16),
        columns.cpu().numpy().astype(np.int16),
        float(scale),
    )


def _fit(matrix: Tensor, factor: Tensor) -> Tensor:
    """The ``x`` that brings ``x factor^T`` nearest to ``matrix``."""
    gram = factor.T @ factor
    # Columns that are nearly alike would give huge entries of opposite sign.
    gram.diagonal().add_(1e-9 * float(gram.diagonal().mean()) + 1e-300)
    solved: Tensor = torch.linalg.solve(gram, (matrix @ factor).T).T
    return solved


def _rounded(values: Tensor, bits: int) -> tuple[Tensor, Tensor]:
    """Columns ``[rows, r]`` as whole numbers and steps ``[r]``, cut off where that errs least."""
    most = 2 ** (bits - 1) - 1
    top = values.abs().amax(0).clamp_min(1e-300)
    kept, steps = torch.zeros_like(values), top / most
    least = torch.full_like(top, torch.inf)
    for clip in _CLIPS:
        step = top * (clip / most)
        whole = (values / step).round().clamp(-most, most)
        error = (values - whole * step).square().sum(0)
        better = error < least
        kept = torch.where(better, whole, kept)
        steps = torch.where(better, step, steps)
        least = torch.where(better, error, least)
    return kept, steps


def _direct(stack: Tensor, bits: int) -> Packed:
    """Every entry as an integer, with a scale for each direction."""
    whole, steps = _rounded(stack.flatten(1).double().T.cpu(), bits)
    steps = torch.where(steps < _TINY, 0.0, steps)
    integers = (whole * (steps > 0)).T.reshape(stack.shape).numpy().astype(np.int16)
    return Packed.direct(integers, steps.float(), bits)
