"""Neural Mimicry as the paper does it: gradient descent on templates and coefficients."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from recast_core.sources.base import Source, count_of

if TYPE_CHECKING:
    from recast_core.config import RecastConfig

# Groups with more layers than this take twice the rate.
_LARGE_GROUP = 4
_DECAYS = 10


@dataclass(frozen=True)
class Gradient(Source):
    """The source ``gradient``: the recipe of the paper (section 3.2 and appendix).

    Minimises ``SmoothL1(W_l, (1/K) sum_k sum_i (c[k,l,i] + e) T_i)`` over templates and
    coefficients with RMSprop, ``e ~ N(0, noise^2)``, gradient norms clipped at 1, and a rate that
    halves ten times on the way. Weights are scaled to entries of root mean square 1 first, or no
    single rate would suit two groups, and scaled back after. ``closed_form`` gives the optimum of
    the squared loss instead, and is what to use; this is for comparison.

    Attributes:
        steps: of RMSprop.
        learning_rate: the first; ``None`` is 0.1, or 0.2 for groups of more than four layers.
        noise: standard deviation added to the coefficients in every step.
        sets: K; their mean is returned, which is the same function.
    """

    steps: int = 1000
    learning_rate: float | None = None
    noise: float = 1e-4
    sets: int = 1

    @classmethod
    def of(cls, config: RecastConfig) -> Self:
        """See ``Source``."""
        return cls(sets=config.sets)

    def __call__(
        self, weights: Tensor, templates: int | None, random: np.random.Philox
    ) -> tuple[Tensor, Tensor]:
        """See ``Source``."""
        layers, count = len(weights), count_of(templates, len(weights))
        generator = torch.Generator().manual_seed(int(random.random_raw() >> np.uint64(1)))
        scale = weights.double().square().mean().sqrt().float().clamp_min(1e-30)
        wanted = weights.flatten(1) / scale
        stack = torch.randn(count, wanted.shape[1], generator=generator).requires_grad_()
        sets = torch.randn(self.sets, layers, count, generator=generator).mul_(count**-0.5)
        sets.requires_grad_()
        rate = self.learning_rate or (0.2 if layers > _LARGE_GROUP else 0.1)
        optimizer = torch.optim.RMSprop([stack, sets], lr=rate)
        decay = torch.optim.lr_scheduler.StepLR(optimizer, max(1, self.steps // _DECAYS), 0.5)
        for _ in range(self.steps):
            noisy = sets + self.noise * torch.randn(sets.shape, generator=generator)
            loss = F.smooth_l1_loss(noisy.mean(0) @ stack, wanted)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_([stack, sets], 1.0)
            optimizer.step()
            decay.step()
        return (
            (stack.detach() * scale).unflatten(1, weights.shape[1:]),
            sets.detach().mean(0),
        )
