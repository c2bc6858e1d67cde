"""The coefficients of an attached model: one flat float32 parameter."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from torch import Tensor, nn

from recast_core.errors import RecastError
from recast_core.turns import Turns

# Of this thread or coroutine alone: the coefficients in use, by the id of their module.
_used: ContextVar[Mapping[int, Tensor]] = ContextVar("used", default={})  # noqa: B039


class Coefficients(nn.Module):
    """All coefficients of a model, trained as ``flat`` and sent as their mean over the K sets.

    Order of ``flat``: the bank's rows one after another (model order of their groups, then of the
    modules in a group); within a row set 0, set 1, ..., set K-1, each with its n coefficients in
    template order. The sent vector has the same order without the sets.

    Attributes:
        flat: float32 ``[K*D]``, or ``[J, K*D]`` with a client axis.
        turns: notices threads that set different coefficients.
    """

    flat: nn.Parameter

    def __init__(self, initial: Sequence[Tensor], sets: int = 1) -> None:
        """Start every set at ``initial``, the bank's rows ``[n_r]``."""
        super().__init__()
        self.sets = sets
        self.sizes = tuple(row.numel() for row in initial)
        ends = torch.tensor(self.sizes).cumsum(0).tolist() if self.sizes else []
        self._bounds = tuple(
            (sets * (end - n), sets * end) for end, n in zip(ends, self.sizes, strict=True)
        )
        start = torch.cat([row.reshape(-1) for row in initial]).float()
        self.register_buffer("initial", start, persistent=False)
        self.flat = nn.Parameter(self.spread(start))
        self.turns = Turns()

    @property
    def sent_count(self) -> int:
        """D."""
        return sum(self.sizes)

    @property
    def current(self) -> Tensor:
        """What the model is computed with here: that of ``using``, else ``flat``."""
        return _used.get().get(id(self), self.flat)

    @property
    def in_use(self) -> bool:
        """Whether this is within ``using``."""
        return id(self) in _used.get()

    @property
    def clients(self) -> int | None:
        """J where the coefficients carry a client axis, else ``None``."""
        current = self.current
        return None if current.dim() == 1 else current.shape[0]

    def row(self, index: int) -> Tensor:
        """Row ``index`` averaged over the sets: ``[n]`` or ``[J, n]``, differentiable."""
        start, stop = self._bounds[index]
        row = self.current[..., start:stop]
        if self.sets == 1:
            return row
        mean: Tensor = row.unflatten(-1, (self.sets, self.sizes[index])).mean(-2)
        return mean

    def initial_row(self, index: int) -> Tensor:
        """``c0`` of row ``index``: ``[n]``."""
        start = sum(self.sizes[:index])
        initial = self.get_buffer("initial")
        return initial[start : start + self.sizes[index]]

    def sent(self) -> Tensor:
        """A copy of the coefficients as they are sent: ``[D]`` or ``[J, D]``, detached."""
        rows = [self.row(index) for index in range(len(self.sizes))]
        return torch.cat(rows, dim=-1).detach().clone()

    @torch.no_grad()
    def load(self, vector: Tensor | None = None) -> None:
        """Set the coefficients to a sent vector, ``c0`` where ``None``.

        Args:
            vector: float32 ``[D]``, or ``[J, D]`` to give the model a client axis of J.

        Raises:
            RecastError: a vector of another length, one that is not finite, or within ``using``.
        """
        self.refuse_in_use()
        spread = self._checked(self.get_buffer("initial") if vector is None else vector)
        with self.turns.changing():
            if spread.shape == self.flat.shape:
                self.flat.copy_(spread)
            else:
                self.flat.data = spread
                self.flat.grad = None

    def refuse_in_use(self) -> None:
        """Refuse to set or train the coefficients where others are in use.

        Raises:
            RecastError: this is within ``using``.
        """
        if self.in_use:
            raise RecastError(
                "a task is in use here, so that setting or training the model would not change "
                "what it computes: leave the `with` block first"
            )

    @contextmanager
    def using(self, vector: Tensor) -> Iterator[None]:
        """Compute with a sent vector ``[D]`` or ``[J, D]`` in the block, in this thread alone.

        Nothing is written: other threads go on with what they have.

        Raises:
            RecastError: a vector of another length, or one that is not finite.
        """
        spread = self._checked(vector.detach())
        token = _used.set({**_used.get(), id(self): spread})
        try:
            yield
        finally:
            _used.reset(token)

    @contextmanager
    def of_clients(self, clients: Tensor) -> Iterator[None]:
        """Compute with the rows of some clients in the block, differentiably.

        Args:
            clients: int64 ``[A]``, of the J clients that there are.
        """
        token = _used.set({**_used.get(), id(self): self.current[clients]})
        try:
            yield
        finally:
            _used.reset(token)

    @contextmanager
    def temporarily(self, vector: Tensor) -> Iterator[None]:
        """Hold a sent vector ``[D]`` or ``[J, D]`` within the block, then what was there before."""
        flat, data, grad = self.flat, self.flat.data, self.flat.grad
        with self.turns.changing():
            flat.data = data.clone()
            try:
                self.load(vector)
                yield
            finally:
                flat.grad = None
                flat.data = data
                flat.grad = grad

    def _checked(self, vector: Tensor) -> Tensor:
        """A sent vector spread over the sets, on the right device."""
        vector = vector.to(self.flat.device, torch.float32)
        if vector.dim() not in (1, 2) or vector.shape[-1] != self.sent_count:
            raise RecastError(
                f"coefficients of shape {list(vector.shape)}: this bank takes {self.sent_count}"
            )
        if not bool(torch.isfinite(vector).all()):
            raise RecastError("coefficients hold NaN or infinity: start again from the last round")
        return self.spread(vector)

    def spread(self, vector: Tensor) -> Tensor:
        """A sent vector ``[..., D]`` as it trains, each row once for every set: ``[..., K*D]``."""
        if self.sets == 1:
            return vector.clone()
        rows = vector.split(list(self.sizes), dim=-1)
        return torch.cat([row for row in rows for _ in range(self.sets)], dim=-1)
