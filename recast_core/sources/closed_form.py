"""Closed-form mimicry: the optimum of the squared loss through a group's Gram matrix."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import numpy as np
import torch
from torch import Tensor

from recast_core.errors import RecastError
from recast_core.sources.base import Source, count_of

if TYPE_CHECKING:
    from recast_core.config import Basis, RecastConfig

_PART = 1 << 16


def closed_form(weights: Tensor, templates: int | None, basis: Basis) -> tuple[Tensor, Tensor]:
    """Templates and coefficients whose combinations are as near to ``weights`` as can be.

    The paper's Neural Mimicry (section 3.2) minimises ``sum_l |W_l - sum_i c[l,i] T_i|^2`` by
    gradient descent. With the group flattened to ``M`` of shape ``[L, P]`` this is a rank-n
    approximation, so the truncated SVD is its optimum (Eckart-Young), and since L is much smaller
    than P the SVD comes from the L x L Gram matrix ``M M^T = U diag(s^2) U^T``: ``T = U_n^T M``.

    Args:
        weights: float32 ``[L, *shape]``.
        templates: n; ``None`` is L.
        basis: ``own`` returns ``weights`` itself (needs n = L); ``orthonormal`` the leading
            directions, each of the root mean square norm of the layers.

    Returns:
        ``T [n, *shape]`` and ``c [L, n]``, float32.

    Raises:
        RecastError: more templates than layers, or own weights with fewer.
    """
    layers = weights.shape[0]
    count = count_of(templates, layers)
    if basis == "own":
        if count < layers:
            raise RecastError(
                f"{count} own-weight templates cannot span {layers} layers: take "
                "basis=orthonormal, more groups, or the residual form"
            )
        return weights, torch.eye(layers)
    flat = weights.flatten(1)
    eigenvalues, vectors = torch.linalg.eigh(_gram(flat))
    leading = vectors.flip(1)[:, :count]
    scale = eigenvalues.clamp_min(0).sum().div(layers).sqrt()
    norms = eigenvalues.flip(0)[:count].clamp_min(0).sqrt()
    # A direction of (numerically) no weight stays zero instead of being blown-up noise.
    used = norms > scale * 1e-7
    unit = torch.where(used, scale / norms.clamp_min(torch.finfo(torch.float64).tiny), 0.0)
    stack = ((unit.unsqueeze(1) * leading.T).float() @ flat).unflatten(1, weights.shape[1:])
    coefficients = leading * torch.where(used, norms / scale.clamp_min(1e-30), 0.0)
    return stack, coefficients.float()


def _gram(flat: Tensor) -> Tensor:
    """``flat flat^T`` of ``[L, P]`` in float64, part by part: a float64 copy would cost more.

    In float64 the Gram matrix keeps half of its digits for singular values down to 1e-8.
    """
    gram = torch.zeros(len(flat), len(flat), dtype=torch.float64)
    for part in flat.split(_PART, dim=1):
        wide = part.double()
        gram += wide @ wide.T
    return gram


@dataclass(frozen=True)
class ClosedForm(Source):
    """The source ``closed-form``.

    Attributes:
        basis: see ``closed_form``.
        beside: the bank adds its combinations to the layers' own weights. Any n of them then
            serve as own templates, since exactness does not hang on their span.
    """

    basis: Basis = "own"
    beside: bool = False

    @classmethod
    def of(cls, config: RecastConfig) -> Self:
        """See ``Source``."""
        return cls(config.basis, config.residual)

    def meta(self, config: RecastConfig) -> dict[str, str]:
        """See ``Source``."""
        return {"basis": self.basis}

    def __call__(
        self, weights: Tensor, templates: int | None, random: np.random.Philox
    ) -> tuple[Tensor, Tensor]:
        """See ``Source``."""
        layers = len(weights)
        if self.beside and self.basis == "own" and templates is not None and templates < layers:
            # Evenly spaced layers differ most.
            chosen = torch.linspace(0, layers - 1, templates).round().long()
            return weights[chosen].clone(), torch.zeros(layers, templates)
        return closed_form(weights, templates, self.basis)
