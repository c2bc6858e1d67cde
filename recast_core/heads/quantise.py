"""Rows of numbers as int8 or int4 with a scale each."""

from __future__ import annotations

import torch
from torch import Tensor

from recast_core.errors import RecastError


def quantise_rows(rows: Tensor, bits: int) -> tuple[Tensor, Tensor]:
    """Each row as signed integers of its own scale.

    Args:
        rows: ``[P, d]``.
        bits: 8 or 4.

    Returns:
        int8 ``[P, d]``, or uint8 ``[P, ceil(d/2)]`` with two numbers a byte, the first in the low
        half; and float32 scales ``[P]``. The error is at most half a scale.

    Raises:
        RecastError: another number of bits.
    """
    if bits not in (4, 8):
        raise RecastError(f"head statistics at {bits} bits: choose 4 or 8")
    top = 2 ** (bits - 1) - 1
    peak = rows.abs().amax(1)
    scale = torch.where(peak > 0, peak / top, torch.ones_like(peak)).float()
    whole = (rows / scale.unsqueeze(1)).round().clamp(-top, top).to(torch.int8)
    if bits == 8:
        return whole, scale
    if whole.shape[1] % 2:
        whole = torch.nn.functional.pad(whole, (0, 1))
    low, high = whole[:, 0::2] & 15, whole[:, 1::2] & 15
    return low.to(torch.uint8) | (high.to(torch.uint8) << 4), scale


def restore_rows(whole: Tensor, scale: Tensor, width: int) -> Tensor:
    """The rows ``[P, width]``, float64, of what ``quantise_rows`` gave."""
    if whole.dtype == torch.uint8:
        pairs = torch.stack([whole & 15, whole >> 4], dim=2).flatten(1)[:, :width].to(torch.int8)
        whole = torch.where(pairs > 7, pairs - 16, pairs)
    return whole.double() * scale.double().unsqueeze(1)
