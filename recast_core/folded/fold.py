"""What a model must do so that many clients can train it at once."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Protocol, Self

import torch
from torch import Tensor

from recast_core.objectives import Batch, Objective


class Fold(Protocol):
    """A model of which each of J clients has P numbers of its own, a row of ``values [J, P]``."""

    @property
    def device(self) -> torch.device:
        """Where it runs."""

    @property
    def sent_count(self) -> int:
        """D, how many numbers a client sends."""

    @property
    def start(self) -> Tensor:
        """The sent vector ``[D]`` that training starts from if no other is given."""

    @property
    def uniform(self) -> bool:
        """Whether every step must have the same shapes, as a compiled model wants."""

    def copy(self) -> Self:
        """One that can train in another thread; what is frozen may be shared."""

    def spread(self, start: Tensor, clients: int) -> Tensor:
        """The values of ``clients`` at a sent vector ``[D]``: ``[J, P]`` on the device."""

    def training(self) -> AbstractContextManager[None]:
        """Surrounds the steps of a chunk; afterwards the model is as it was."""

    def variables(self, values: Tensor) -> Tensor:
        """What the next losses are a function of: ``values [A, P]`` in the same memory."""

    def losses(self, inputs: Tensor, batch: Batch, objective: Objective) -> Tensor:
        """The loss of each client ``[A]`` at ``variables``.

        Args:
            inputs: of the store, ``[A * N, ...]``, client after client.
            batch: their labels, and which of them are padding.
            objective: of float32 features ``[A, N, d]``.
        """

    def sent(self, values: Tensor) -> Tensor:
        """The vectors that clients with ``values [J, P]`` send: ``[J, D]``, on the CPU."""
