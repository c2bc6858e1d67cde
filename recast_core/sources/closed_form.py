"""Closed-form mimicry: the optimum of the squared loss through a group's Gram matrix."""

from __future__ import annotations

import torch
from torch import Tensor

from recast_core.config import Basis
from recast_core.errors import RecastError


def closed_form(weights: Tensor, templates: int | None, basis: Basis) -> tuple[Tensor, Tensor]:
    """Templates and coefficients whose combinations are as near to ``weights`` as can be.

    The paper's Neural Mimicry (section 3.2) minimises ``sum_l |W_l - sum_i c[l,i] T_i|^2`` by
    gradient descent. With the group flattened to ``M`` of shape ``[L, P]`` this is a rank-n
    approximation, so the truncated SVD is its optimum (Eckart-Young), and since L is much smaller
    than P the SVD comes from the L x L Gram matrix ``M M^T = U diag(s^2) U^T``: ``T = U_n^T M``.

    Args:
        weights: float32 ``[L, *shape]``.
        templates: n; ``None`` is L.
        basis: ``own`` returns the layers themselves (needs n = L); ``orthonormal`` the leading
            directions, each of the root mean square norm of the layers.

    Returns:
        ``T [n, *shape]`` and ``c [L, n]``, float32.

    Raises:
        RecastError: more templates than layers, or own weights with fewer.
    """
    layers = weights.shape[0]
    count = layers if templates is None else templates
    if count > layers:
        raise RecastError(
            f"{count} templates for a group of {layers} layers: {layers} already reproduce it "
            "exactly, ask for at most that many"
        )
    if basis == "own":
        if count < layers:
            raise RecastError(
                f"{count} own-weight templates cannot span {layers} layers: take "
                "basis=orthonormal, more groups, or the residual form"
            )
        return weights.clone(), torch.eye(layers)
    flat = weights.flatten(1).double()
    # In float64 the Gram matrix keeps half of its digits for singular values down to 1e-8.
    eigenvalues, vectors = torch.linalg.eigh(flat @ flat.T)
    leading = vectors.flip(1)[:, :count]
    scale = eigenvalues.clamp_min(0).sum().div(layers).sqrt()
    directions = leading.T @ flat
    norms = eigenvalues.flip(0)[:count].clamp_min(0).sqrt()
    # A direction of (numerically) no weight stays zero instead of being blown-up noise.
    used = norms > scale * 1e-7
    unit = torch.where(used, scale / norms.clamp_min(torch.finfo(torch.float64).tiny), 0.0)
    stack = (unit.unsqueeze(1) * directions).unflatten(1, weights.shape[1:])
    coefficients = leading * torch.where(used, norms / scale.clamp_min(1e-30), 0.0)
    return stack.float(), coefficients.float()
