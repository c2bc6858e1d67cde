"""Clients as channel groups of one convolution on a CPU, with what follows it done in its place.

Where ``[J*B, C, H, W]`` lies as ``[B, J*C, H, W]`` with the channels last, J small convolutions are
one of J groups: no loop, nothing to concatenate, and full vectors also where C is small.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any, cast

import torch
from torch import Tensor
from torch.nn import functional as F

LAST = torch.channels_last


@dataclass(frozen=True)
class Form:
    """What a convolution does besides its weight; hashable.

    Attributes:
        stride: by axis.
        padding: by axis, of zeros.
        dilation: by axis.
        relu: cut off below zero at the end.
    """

    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]
    relu: bool = False


def gather(x: Tensor, clients: int) -> Tensor:
    """``[J*B, C, H, W]``, client after client, as ``[B, J*C, H, W]`` with channels last."""
    split = x.unflatten(0, (clients, -1)).permute(1, 3, 4, 0, 2)
    lying: Tensor = split.reshape(*split.shape[:3], -1)
    return lying.movedim(-1, 1)


def scatter(features: Tensor, clients: int) -> Tensor:
    """``[B, J*d]`` as ``[J*B, d]``, client after client."""
    split: Tensor = features.unflatten(1, (clients, -1))
    return split.transpose(0, 1).flatten(0, 1)


def convolve(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    residual: Tensor | None,
    form: Form,
    clients: int,
) -> Tensor:
    """``relu(conv(x) + bias + residual)`` of each client's own group.

    Args:
        x: ``[B, J*C, H, W]``, channels last.
        weight: ``[J*out, kh, kw, C]``: as it lies where channels are last.
        bias: ``[J*out]``.
        residual: ``[B, J*out, H', W']``, channels last.
        form: the rest.
        clients: J.

    Returns:
        ``[B, J*out, H', W']``, channels last: for each client to the last bit what it is for any
        other J, where ``steady`` says so.
    """
    return cast(Tensor, _Convolve.apply(x, weight, bias, residual, form, clients))


class _Convolve(torch.autograd.Function):
    """Forward and backward in as few passes over memory as there can be."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        residual: Tensor | None,
        form: Form,
        clients: int,
    ) -> Tensor:
        """See ``convolve``."""
        lying = weight.movedim(-1, 1)
        twice = clients == 1 and _single(x, lying, form).forward
        first = _doubled(x, lying, bias) if twice else (x, lying, bias)
        out = _forward(*first, form, clients + twice)
        if twice:
            out = out[:, : len(weight)].contiguous(memory_format=LAST)
        if residual is not None:
            out += residual
        if form.relu:
            out.clamp_min_(0)
        ctx.save_for_backward(x, weight, out if form.relu else None)
        ctx.form, ctx.clients = form, clients
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """See ``torch.autograd.Function``."""
        x, weight, out = ctx.saved_tensors
        form, clients = ctx.form, ctx.clients
        gradient = gradients[0].contiguous(memory_format=LAST)
        if out is not None:
            gradient = torch.ops.aten.threshold_backward(gradient, out, 0)
        lying = weight.movedim(-1, 1)
        single = _single(x, lying, form) if clients == 1 else _NONE
        need_x, need_weight, need_bias, need_residual = ctx.needs_input_grad[:4]
        found: list[Tensor | None] = [None, None, None]
        if need_x:
            found[0] = _towards_input(gradient, x, lying, form, clients, twice=single.x)
        if need_weight or need_bias:
            own, shift = _towards_weight(gradient, x, lying, form, clients, twice=single.weight)
            found[1] = own.contiguous(memory_format=LAST).movedim(1, -1) if need_weight else None
            found[2] = shift if need_bias else None
        return *found, gradient if need_residual else None, None, None


def _doubled(x: Tensor, lying: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor, Tensor | None]:
    """One client twice: the kernels of several then do the work."""
    return _beside(x), torch.cat([lying, lying]), None if bias is None else torch.cat([bias, bias])


def _beside(x: Tensor) -> Tensor:
    return torch.cat([x, x], 1).contiguous(memory_format=LAST)


def _forward(x: Tensor, lying: Tensor, bias: Tensor | None, form: Form, groups: int) -> Tensor:
    return F.conv2d(x, lying, bias, form.stride, form.padding, form.dilation, groups)


def _towards_input(
    gradient: Tensor, x: Tensor, lying: Tensor, form: Form, clients: int, *, twice: bool
) -> Tensor:
    """The gradient of the input."""
    if twice:
        two = _both(_beside(gradient), _beside(x), torch.cat([lying, lying]), form, 2, 0)[0]
        return two[:, : x.shape[1]].contiguous(memory_format=LAST)
    return _both(gradient, x, lying, form, clients, 0)[0]


def _towards_weight(
    gradient: Tensor, x: Tensor, lying: Tensor, form: Form, clients: int, *, twice: bool
) -> tuple[Tensor, Tensor]:
    """The gradients of the weight, and of a bias: this library's sum has the same bits anywhere."""
    if not twice:
        _, weight, bias = _both(gradient, x, lying, form, clients, 1)
        return weight, bias
    _, weight, bias = _both(_beside(gradient), _beside(x), torch.cat([lying, lying]), form, 2, 1)
    return weight[: len(lying)], bias[: len(lying)]


def _both(
    gradient: Tensor, x: Tensor, lying: Tensor, form: Form, groups: int, which: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Of the input (``which`` 0), or of weight and bias (1); the rest is of no meaning."""
    found = torch.ops.aten.convolution_backward(
        gradient, x, lying, [len(lying)], form.stride, form.padding, form.dilation, False, [0, 0],
        groups, [which == 0, which == 1, which == 1],
    )  # fmt: skip
    return cast(tuple[Tensor, Tensor, Tensor], found)


@dataclass(frozen=True)
class Single:
    """What a client alone computes as if it were two, to get the bits that it gets among others.

    Attributes:
        forward: the result.
        x: the gradient of the input.
        weight: those of weight and bias.
    """

    forward: bool = False
    x: bool = False
    weight: bool = False


_NONE = Single()
# Images, channels, height and width; channels out, kernel, and the form without the cut.
Key = tuple[tuple[int, int, int, int], tuple[int, int, int], Form]


def _key(x: Tensor, lying: Tensor, form: Form, clients: int) -> Key:
    rows, channels, height, width = x.shape
    size = (lying.shape[0] // clients, lying.shape[2], lying.shape[3])
    plain = Form(form.stride, form.padding, form.dilation)
    return (rows, channels // clients, height, width), size, plain


def steady(x: Tensor, weight: Tensor, form: Form, clients: int) -> bool:
    """Whether each client's result has the same bits for any number of clients on this machine.

    With several threads for one product no result has, and nobody is promised that.
    """
    if torch.get_num_threads() > 1:
        return True
    return _found(_key(x, weight.movedim(-1, 1), form, clients)) is not None


def _single(x: Tensor, lying: Tensor, form: Form) -> Single:
    """What one client computes twice; in half precision nobody is promised bits."""
    if torch.get_num_threads() > 1 or x.dtype == torch.bfloat16:
        return _NONE
    return _found(_key(x, lying, form, 1)) or _NONE


@lru_cache(maxsize=512)
def _found(key: Key) -> Single | None:
    """Tried out with random numbers: libraries choose kernels by shape and processor."""
    trial = _Trial(key)
    among = trial.results((0, 1, 2))
    if not all(map(torch.equal, among[0], trial.results((0, 1))[0])):
        return None
    must = [False] * 3
    for client in (0, 2):
        alone, twice = trial.results((client,))[0], trial.results((client,), twice=True)[0]
        for at, (wanted, one, two) in enumerate(zip(among[client], alone, twice, strict=True)):
            must[at] |= not torch.equal(wanted, one)
            if must[at] and not torch.equal(wanted, two):
                return None
    return Single(*must)


class _Trial:
    """Random tensors of three clients."""

    def __init__(self, key: Key) -> None:
        (rows, channels, height, width), (out, *kernel), self._form = key
        generator = torch.Generator().manual_seed(0)

        def some(*shape: int) -> Tensor:
            return torch.randn(3, *shape, generator=generator)

        self._x = some(rows, channels, height, width)
        self._weight, self._bias = some(out, channels, *kernel), some(out)
        form = self._form
        shape = F.conv2d(
            self._x[0], self._weight[0], None, form.stride, form.padding, form.dilation
        ).shape
        self._gradient = some(*shape)

    def results(self, clients: tuple[int, ...], *, twice: bool = False) -> list[list[Tensor]]:
        """By client: result, gradient of the input, those of weight and bias."""
        x, gradient = (
            torch.cat([t[i] for i in clients], 1).contiguous(memory_format=LAST)
            for t in (self._x, self._gradient)
        )
        lying = torch.cat([self._weight[i] for i in clients]).contiguous(memory_format=LAST)
        bias = torch.cat([self._bias[i] for i in clients])
        count, form = len(clients), self._form
        first = _doubled(x, lying, bias) if twice else (x, lying, bias)
        weight, shift = _towards_weight(gradient, x, lying, form, count, twice=twice)
        both = torch.cat([weight.flatten(1), shift.unsqueeze(1)], 1)
        found = (
            _forward(*first, form, count + twice).transpose(0, 1)[: len(lying)],
            _towards_input(gradient, x, lying, form, count, twice=twice).transpose(0, 1),
            both,
        )
        return [[t.unflatten(0, (count, -1))[at] for t in found] for at in range(count)]
