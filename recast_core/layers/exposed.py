"""What a parent reads of a target layer: the tensors and settings of the module it stands for."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from recast_core.errors import RecastError

_tracing: ContextVar[bool] = ContextVar("tracing", default=False)
_READS = {"__get__", "dim", "size", "numel", "element_size", "is_floating_point"}


class ReadWhileTracedError(Exception):
    """A parent read a recombined tensor while ``torch.fx`` traced it: a constant in the graph.

    Attributes:
        layer: that was read.
    """

    def __init__(self, layer: object) -> None:
        super().__init__("a recombined tensor was read: trace its reader as a whole")
        self.layer = layer


@contextmanager
def traced() -> Iterator[None]:
    """Within the block, reading a recombined tensor raises ``ReadWhileTracedError``."""
    token = _tracing.set(True)
    try:
        yield
    finally:
        _tracing.reset(token)


class PerClientTensor(Tensor):
    """A tensor with a client axis that its reader takes for the tensor of one module.

    ``F.linear`` meets each client's rows with that client's tensor, client after client, as the
    target layers do. Every other operation would mix clients, and is refused.
    """

    @classmethod
    def __torch_function__(
        cls,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """See the class.

        Raises:
            RecastError: an operation that cannot keep clients apart.
        """
        from recast_core.layers.linear import linear

        kwargs = kwargs or {}
        with torch._C.DisableTorchFunctionSubclass():
            if func is F.linear:
                plain = [_plain(value) for value in args]
                named = {key: _plain(value) for key, value in kwargs.items()}
                return linear(*plain, **{"bias": None, **named} if len(plain) < 3 else named)
            if func.__name__ in _READS:
                read = func(*args, **kwargs)
                # A transpose is read like a property, and is no number of the whole.
                if not isinstance(read, Tensor):
                    return read
        raise RecastError(
            f"a layer that reads a target's tensor works on it by {func.__name__}, which cannot "
            "tell clients apart: leave that target out, or train one client at a time"
        )


def expose(layer: object, tensor: Tensor, dims: int) -> Tensor:
    """``tensor`` for a parent that reads it; ``dims`` is what it has without a client axis.

    Raises:
        ReadWhileTracedError: within ``traced``.
    """
    if _tracing.get():
        raise ReadWhileTracedError(layer)
    if tensor.dim() == dims:
        return tensor
    return tensor.as_subclass(PerClientTensor)


def _plain(value: Any) -> Any:
    return value.as_subclass(Tensor) if isinstance(value, PerClientTensor) else value
