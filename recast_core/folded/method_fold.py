"""Many clients of another method: ``torch.func`` gives each its own weights."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel

from recast_core.copies import copied
from recast_core.methods import MethodModel
from recast_core.objectives import Batch, Objective


class _Features(nn.Module):
    def __init__(self, model: MethodModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        return self.model.features(images)


class MethodFold:
    """The parameters of a method that is ``foldable``.

    Attributes:
        model: prepared; left with parameters of no meaning. Its images are prepared by the
            backbone's own preprocessing.
        start: see ``Fold``.
        uniform: see ``Fold``.
    """

    uniform = False

    def __init__(self, model: MethodModel) -> None:
        self.model = model
        self.start = model.sent_vector().cpu()
        self._features = _Features(model)
        trained = {id(parameter) for parameter in model.trainable().values()}
        self._parameters = {
            name: p for name, p in self._features.named_parameters() if id(p) in trained
        }
        self._shapes = [parameter.shape for parameter in self._parameters.values()]
        self._sizes = [shape.numel() for shape in self._shapes]
        self._own = torch.empty(0)

    @property
    def device(self) -> torch.device:
        """See ``Fold``."""
        return next(iter(self._parameters.values())).device

    @property
    def sent_count(self) -> int:
        """See ``Fold``."""
        return self.model.sent_count

    def copy(self) -> MethodFold:
        """See ``Fold``."""
        return MethodFold(copied(self.model))

    @torch.no_grad()
    def spread(self, start: Tensor, clients: int) -> Tensor:
        """See ``Fold``."""
        self.model.load_vector(start.to(self.device))
        flat = torch.cat([parameter.reshape(-1) for parameter in self._parameters.values()])
        return flat.expand(clients, -1).clone()

    @contextmanager
    def training(self) -> Iterator[None]:
        """See ``Fold``."""
        yield

    def variables(self, values: Tensor) -> Tensor:
        """See ``Fold``."""
        self._own = values.detach().requires_grad_(True)
        return self._own

    def losses(self, inputs: Tensor, batch: Batch, objective: Objective) -> Tensor:
        """See ``Fold``."""
        images = inputs.unflatten(0, batch.real.shape)
        # Plain products: of the fused kernels some have no gradient under vmap.
        with _differentiable_attention(), sdpa_kernel(SDPBackend.MATH):
            if batch.local is None or self.model.net.statistics is None:
                features = vmap(self._of_client)(self._own, images)
            else:
                real = batch.real.float()
                features = vmap(self._by_batch)(self._own, images, real, batch.local)
        return objective.losses(features.flatten(2), batch)

    def _by_batch(self, own: Tensor, images: Tensor, real: Tensor, local: Tensor) -> Tensor:
        statistics = self.model.net.statistics
        assert statistics is not None
        with statistics.of(real, local):
            return self._of_client(own, images)

    def _of_client(self, own: Tensor, images: Tensor) -> Tensor:
        pieces = own.split(self._sizes)
        shaped = (piece.view(shape) for piece, shape in zip(pieces, self._shapes, strict=True))
        named = dict(zip(self._parameters, shaped, strict=True))
        found: Tensor = functional_call(self._features, named, images)
        return found

    @torch.no_grad()
    def sent(self, values: Tensor) -> Tensor:
        """See ``Fold``."""
        vectors = []
        for line in values:
            pieces = line.split(self._sizes)
            for parameter, piece in zip(self._parameters.values(), pieces, strict=True):
                parameter.copy_(piece.view_as(parameter))
            vectors.append(self.model.sent_vector().cpu())
        return torch.stack(vectors)


@contextmanager
def _differentiable_attention() -> Iterator[None]:
    """PyTorch does not see through ``vmap`` that gradients are wanted, and takes a path without."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)
