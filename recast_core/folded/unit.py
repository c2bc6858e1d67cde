"""One convolution with the norm, the sum and the cut that follow it, for many clients on a CPU."""

from __future__ import annotations

from collections.abc import MutableMapping
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recast_core.folded.grouped import Form, convolve, steady
from recast_core.layers import (
    RecastBatchNorm2d,
    RecastConv2d,
    Slot,
    TargetLayer,
    Templates,
    has_hooks,
)

# By name of a convolution and whether its norm's scale is in it: weight and templates as they lie.
Constants = MutableMapping[tuple[str, bool], tuple[Tensor | None, Templates | None]]


class UnfitError(Exception):
    """Not of the kind that a chain of units computes: the model does it as it is."""


class Unit:
    """``relu(norm(conv(x)) + residual)``; norm, residual and cut where they follow.

    A norm with statistics of its own is part of the weight: nothing is left of it but a bias.
    """

    def __init__(self, name: str, conv: nn.Module, constants: Constants) -> None:
        """Begin with the convolution ``conv``, known as ``name``.

        Raises:
            UnfitError: a convolution with groups, hooks, adapters or another padding than zeros.
        """
        layer = conv if isinstance(conv, RecastConv2d) else None
        plain = conv if layer is None else layer.original
        if not isinstance(plain, nn.Conv2d) or _does_more(conv):
            raise UnfitError
        if plain.groups != 1 or plain.padding_mode != "zeros" or isinstance(plain.padding, str):
            raise UnfitError
        self._name, self._plain, self._layer = name, plain, layer
        self._norm: nn.Module | None = None
        self._form = Form(_pair(plain.stride), _pair(plain.padding), _pair(plain.dilation))
        self._constants = constants
        self._repeated: dict[tuple[str, int], Tensor] = {}

    @property
    def cut(self) -> bool:
        """Whether it ends with a ReLU."""
        return self._form.relu

    @property
    def normed(self) -> bool:
        """Whether it has a norm."""
        return self._norm is not None

    def add_norm(self, norm: nn.Module) -> None:
        """Normalise what the convolution gives.

        Raises:
            UnfitError: see ``check_norm``.
        """
        check_norm(norm)
        self._norm = norm

    def add_cut(self) -> None:
        """End with a ReLU."""
        self._form = replace(self._form, relu=True)

    def __call__(self, x: Tensor, residual: Tensor | None, clients: int, local: bool) -> Tensor:
        """Apply it to clients as channel groups; see ``grouped.convolve``.

        Args:
            x: ``[B, J*C, H, W]``.
            residual: what is added before the cut.
            clients: J.
            local: a norm that may normalise by each client's own rows does.

        Raises:
            UnfitError: bits would depend on J on this machine.
        """
        norm = self._norm if local and _takes_rows(self._norm) else None
        weight, bias = self._weight(clients, scaled=norm is None)
        if x.dtype == torch.bfloat16:  # in half precision nobody is promised bits
            weight, bias = weight.to(x.dtype), None if bias is None else bias.to(x.dtype)
        elif not steady(x, weight, self._form, clients):
            raise UnfitError
        if norm is None:
            return convolve(x, weight, bias, residual, self._form, clients)
        out = convolve(x, weight, bias, None, replace(self._form, relu=False), clients)
        out = normalise(norm, out, clients, local=True)
        if residual is not None:
            out = out + residual
        return out.relu_() if self.cut else out

    def _weight(self, clients: int, *, scaled: bool) -> tuple[Tensor, Tensor | None]:
        """``[J*out, kh, kw, in]`` and ``[J*out]``, with the norm's map in them where ``scaled``."""
        scale, shift = _affine(self._norm) if scaled else (None, None)
        fixed = scale is not None and not _written(self._norm)
        slot = None if self._layer is None else self._layer.slots.get("weight")
        base, templates = self._lying(slot, scale if fixed else None)
        if slot is None:
            assert base is not None
            weight = base
        else:
            assert templates is not None
            weight = replace(slot, templates=templates).combine(base)
        if scale is not None and not fixed:
            weight = _each(weight, clients) * scale[..., None, None, None]
        bias = self._plain.bias if self._layer is None else self._layer.optional("bias")
        if bias is not None and scale is not None:
            bias = bias * scale
        if shift is not None:
            bias = shift if bias is None else bias + shift
        return self._repeat("weight", weight, 4, clients, scaled), (
            None if bias is None else self._repeat("bias", bias, 1, clients, scaled)
        )

    def _repeat(self, name: str, tensor: Tensor, dims: int, clients: int, scaled: bool) -> Tensor:
        """``[J, out, ...]`` or ``[out, ...]`` as ``[J*out, ...]``; what is frozen is kept."""
        if tensor.dim() > dims:
            return tensor.flatten(0, 1)
        if tensor.requires_grad:
            return _each(tensor, clients).flatten(0, 1)
        key = (f"{name}, {scaled}", clients)
        if key not in self._repeated:
            self._repeated[key] = _each(tensor, clients).flatten(0, 1).contiguous()
        return self._repeated[key]

    @torch.no_grad()
    def _lying(
        self, slot: Slot | None, scale: Tensor | None
    ) -> tuple[Tensor | None, Templates | None]:
        """The frozen weight and the templates with channels last, times a fixed scale."""
        key = self._name, scale is not None
        if key not in self._constants:
            frozen: Tensor | None = self._plain._parameters["weight"]
            templates = None
            if slot is not None:
                stack = slot.templates.stack.movedim(2, -1)
                templates = Templates(_times(stack, scale))
            base = None if frozen is None else _times(frozen.movedim(1, -1), scale)
            self._constants[key] = base, templates
        return self._constants[key]


def check_norm(norm: nn.Module) -> None:
    """Refuse a norm with hooks or adapters, or without running statistics.

    Raises:
        UnfitError: such a norm.
    """
    plain = norm.original if isinstance(norm, RecastBatchNorm2d) else norm
    if type(plain) is not nn.BatchNorm2d or plain.running_mean is None or _does_more(norm):
        raise UnfitError


def normalise(norm: nn.Module, x: Tensor, clients: int, *, local: bool) -> Tensor:
    """``[B, J*C, H, W]`` by running statistics; where ``local``, by own rows if it may be."""
    if not (local and _takes_rows(norm)):
        scale, shift = (
            _each(part, clients).flatten() for part in _affine(norm) if part is not None
        )
        return x * scale[:, None, None] + shift[:, None, None]
    weight, bias = (None if part is None else _each(part, clients).flatten() for part in _own(norm))
    eps = (norm.original if isinstance(norm, RecastBatchNorm2d) else norm).eps
    assert isinstance(eps, float)
    return F.batch_norm(x, None, None, weight, bias, training=True, eps=eps)


def _takes_rows(norm: nn.Module | None) -> bool:
    return isinstance(norm, RecastBatchNorm2d) and norm.statistics is not None


def _times(tensor: Tensor, scale: Tensor | None) -> Tensor:
    """``[..., out, kh, kw, in]`` times ``[out]``, contiguous."""
    return (tensor if scale is None else tensor * scale[:, None, None, None]).contiguous()


def _each(tensor: Tensor, clients: int) -> Tensor:
    """A client axis in front; ``[out]`` and ``[J, out]`` are told apart by who calls."""
    has_axis = tensor.dim() in (2, 5)
    return tensor if has_axis else tensor.expand(clients, *tensor.shape)


def _written(norm: nn.Module | None) -> bool:
    return isinstance(norm, TargetLayer) and bool(norm.written)


def _affine(norm: nn.Module | None) -> tuple[Tensor | None, Tensor | None]:
    """Scale and shift of a norm by running statistics: ``[C]``, recombined ones ``[J, C]``."""
    if norm is None:
        return None, None
    if isinstance(norm, RecastBatchNorm2d):
        mean, variance = norm.tensor("running_mean"), norm.tensor("running_var")
        eps = norm.original.eps
    else:
        assert isinstance(norm, nn.BatchNorm2d)
        assert norm.running_mean is not None
        assert norm.running_var is not None
        mean, variance, eps = norm.running_mean, norm.running_var, norm.eps
    weight, bias = _own(norm)
    scale = (variance + eps).rsqrt()
    scale = scale if weight is None else scale * weight
    shift = -mean * scale
    return scale, shift if bias is None else shift + bias


def _own(norm: nn.Module) -> tuple[Tensor | None, Tensor | None]:
    """Weight and bias of a norm."""
    if isinstance(norm, RecastBatchNorm2d):
        return norm.optional("weight"), norm.optional("bias")
    return norm._parameters["weight"], norm._parameters["bias"]


def _pair(value: int | tuple[int, ...]) -> tuple[int, int]:
    if isinstance(value, int):
        return value, value
    first, second = value
    return first, second


def _does_more(module: nn.Module) -> bool:
    """Whether calling the module does more than its kind does."""
    known = type(module) in (nn.Conv2d, nn.BatchNorm2d, RecastConv2d, RecastBatchNorm2d)
    adapted = isinstance(module, TargetLayer) and len(module.transforms) > 0
    return not known or adapted or has_hooks(module)
