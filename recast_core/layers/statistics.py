"""What BatchNorms normalise by: their frozen statistics, or those of each client's own images."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor


class ReachedError(Exception):
    """A pass came to the layer whose statistics were wanted, and ends there."""

    def __init__(self, found: tuple[Tensor, Tensor], pixels: int = 0) -> None:
        """``found`` are mean and variance over so many pixels of all images."""
        super().__init__("a pass that measures one layer")
        self.found, self.pixels = found, pixels


class BatchStatistics:
    """One switch for all the BatchNorms of a model; off, they use what they came with.

    On, each client's block of rows is normalised by mean and variance of those of its rows that
    count (Ioffe and Szegedy, 2015): padding does not, and test images need not, so that one pass
    over training and test images normalises both by the training images' statistics. Nothing is
    written: a statistic never outlives the pass that computed it, and never leaves its client.

    Attributes:
        counted: float32 ``[J, R]`` or ``[R]``, 1 for each row that counts; ``None`` is off.
        local: bool ``[J]``, which clients use their own; all where ``None``.
        tape: what the layers normalised by, in their order, while it is kept; see ``kept``.
        whole: all rows are one client's and count, so that the fused kernel can do it: a GPU takes
            half the time then, and cannot be asked whether they do.
    """

    def __init__(self) -> None:
        self.counted: Tensor | None = None
        self.local: Tensor | None = None
        self.whole = False
        self.tape: list[tuple[Tensor, Tensor]] | None = None
        self._again: Iterator[tuple[Tensor, Tensor]] | None = None
        self._next = False

    @contextmanager
    def kept(self, counted: Tensor) -> Iterator[list[tuple[Tensor, Tensor]]]:
        """Normalise by the rows that count, and keep what that was, for ``again``."""
        self.tape = []
        try:
            with self.of(counted):
                yield self.tape
        finally:
            self.tape = None

    @contextmanager
    def again(self, tape: list[tuple[Tensor, Tensor]], counted: Tensor) -> Iterator[None]:
        """Normalise one pass by what another one kept, whatever the rows are."""
        self._again = iter(tape)
        try:
            with self.of(counted):
                yield
        finally:
            self._again = None

    @contextmanager
    def next_after(self, tape: list[tuple[Tensor, Tensor]], counted: Tensor) -> Iterator[None]:
        """Normalise by ``tape`` as far as it goes; at the next layer raise ``ReachedError``."""
        self._next = True
        try:
            with self.again(tape, counted):
                yield
        finally:
            self._next = False

    def moments(self, rows: Tensor, counted: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and variance of the rows that count, or those of the pass that kept them."""
        if self._again is not None and (kept := next(self._again, None)) is not None:
            return kept
        found = moments(rows, counted)
        if self._next:
            raise ReachedError(found)
        if self.tape is not None:
            self.tape.append(found)
        return found

    @contextmanager
    def of(
        self, counted: Tensor | None, local: Tensor | None = None, *, whole: bool = False
    ) -> Iterator[None]:
        """Normalise by the rows that count within the block; ``None`` leaves all as it is."""
        before = self.counted, self.local, self.whole
        if counted is not None:
            self.counted, self.local, self.whole = counted, local, whole
        try:
            yield
        finally:
            self.counted, self.local, self.whole = before


def moments(rows: Tensor, counted: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and (biased) variance by channel of the rows that count, differentiable.

    Args:
        rows: ``[..., R, C, H, W]``.
        counted: ``[..., R]`` of 0 and 1, at least one 1.

    Returns:
        ``[..., C]`` each.
    """
    weight = counted / counted.sum(-1, keepdim=True).clamp_min(1)
    weight = weight[..., None]
    mean = (rows.mean((-2, -1)) * weight).sum(-2)
    centred = rows - mean[..., None, :, None, None]
    return mean, (centred.square().mean((-2, -1)) * weight).sum(-2)


class Merged:
    """Mean and variance of images that come in parts: those of all of them together.

    With ``n`` images of mean ``m`` and variance ``v`` in a part, the mean of all is the mean of
    ``m`` weighted by ``n``, and the variance that of ``v + (m - mean)**2`` (Chan, Golub and
    LeVeque, 1979): no approximation. Sums are of float64.
    """

    def __init__(self) -> None:
        self._counts: list[int] = []
        self._parts: list[tuple[Tensor, Tensor]] = []

    def add(self, part: tuple[Tensor, Tensor], count: int) -> None:
        """Count in a part of ``count`` images: mean and (biased) variance, ``[C]`` each."""
        self._parts.append((part[0].double(), part[1].double()))
        self._counts.append(count)

    def result(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and (biased) variance ``[C]`` of all, of the type of ``like``."""
        means, variances = (torch.stack(parts) for parts in zip(*self._parts, strict=True))
        weights = torch.tensor(self._counts, dtype=means.dtype, device=means.device)
        weights = (weights / weights.sum()).unsqueeze(1)
        mean = (weights * means).sum(0)
        variance = (weights * (variances + (means - mean).square())).sum(0)
        return mean.to(like.dtype), variance.to(like.dtype)


def blended(own: Tensor, frozen: Tensor, local: Tensor | None) -> Tensor:
    """``own [J, C]`` for the clients that use their own, else ``frozen [C]`` or ``[J, C]``."""
    return own if local is None else torch.where(local.unsqueeze(-1), own, frozen)
