"""One step of training of a chunk of clients."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from recast_core.descent import refuse_unreached
from recast_core.folded.adamw import adamw_step
from recast_core.folded.fold import Fold
from recast_core.folded.images import ImageStore
from recast_core.folded.schedule import Step
from recast_core.objectives import Objective


@dataclass(frozen=True, eq=False)
class State:
    """What the steps of a chunk of J clients change, in place.

    Attributes:
        values: what they train, ``[J, P]``.
        mean: first moments of AdamW, likewise.
        square: second moments.
        losses: sums over the steps of the last epoch, ``[J]``.
        counted: how many of these there were, ``[J]``.
    """

    values: Tensor
    mean: Tensor
    square: Tensor
    losses: Tensor
    counted: Tensor

    @classmethod
    def at(cls, values: Tensor) -> State:
        """Before the first step, with ``values`` in their place."""
        zeros = (torch.zeros_like(values) for _ in range(2))
        sums = (values.new_zeros(len(values)) for _ in range(2))
        return cls(values, *zeros, *sums)

    def restart(self, values: Tensor) -> None:
        """Be before the first step again, with a copy of ``values``."""
        self.values.copy_(values)
        for moment in (self.mean, self.square, self.losses, self.counted):
            moment.zero_()


def take_step(
    fold: Fold, store: ImageStore, objective: Objective, state: State, step: Step
) -> None:
    """Lower the loss of the first A clients of a chunk once, within ``fold.training()``.

    Raises:
        RecastError: no coefficient reaches the loss.
    """
    active = len(step.rows)
    values = state.values[:active]
    own = fold.variables(values)
    loss = fold.losses(store.inputs(step.rows.flatten()), step.batch, objective)
    refuse_unreached(loss)
    (gradient,) = torch.autograd.grad(loss.sum(), own)
    adamw_step(
        values, state.mean[:active], state.square[:active], gradient,
        step.step_size, step.root, step.moves,
    )  # fmt: skip
    weight = (step.last & step.moves)[:, 0].float()
    state.losses[:active] += weight * loss.detach()
    state.counted[:active] += weight
