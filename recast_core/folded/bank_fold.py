"""Many clients of an attached model: target layers take coefficients with a client axis."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor, nn

from recast_core.folded.chain import Chain, chain_of
from recast_core.folded.images import ImageStore
from recast_core.folded.precision import bfloat16
from recast_core.folded.split import SplitModel, copy_split
from recast_core.folded.threads import on_each_core
from recast_core.folded.unit import Constants
from recast_core.layers.statistics import BatchStatistics
from recast_core.objectives import Batch, Objective
from recast_core.pulse import advance

_CPU_EVALUATION_BATCH = 64
_CUDA_EVALUATION_BATCH = 2048


@dataclass(eq=False)
class BankFold:
    """The coefficients of an attached model. Keep it between trainings: it compiles once.

    Attributes:
        model: divided; its coefficients are left as they were.
        half: bfloat16 products. Coefficients, loss and optimizer stay in float32.
        compiled: ``torch.compile`` the model and the loss.
        constants: what the units of a chain compute once, shared with copies.
    """

    model: SplitModel
    half: bool = False
    compiled: bool = False
    constants: Constants = field(default_factory=dict, repr=False)

    @property
    def device(self) -> torch.device:
        """See ``Fold``."""
        return self.model.net.device

    @property
    def sent_count(self) -> int:
        """See ``Fold``."""
        return self.model.net.coefficients.sent_count

    @property
    def start(self) -> Tensor:
        """See ``Fold``."""
        return self.model.net.bank.initial_vector

    @property
    def uniform(self) -> bool:
        """See ``Fold``."""
        return self.compiled

    def copy(self) -> BankFold:
        """See ``Fold``."""
        return BankFold(copy_split(self.model), self.half, self.compiled, self.constants)

    @torch.no_grad()
    def spread(self, start: Tensor, clients: int) -> Tensor:
        """See ``Fold``."""
        coefficients = self.model.net.coefficients
        return coefficients.spread(start.to(self.device).expand(clients, -1))

    @contextmanager
    def training(self) -> Iterator[None]:
        """See ``Fold``."""
        net = self.model.net.eval()
        own = net.coefficients.flat
        # Of another shape than any that is to come, so that the first step makes its own.
        net.coefficients.flat = nn.Parameter(own.new_empty(0, 0))
        try:
            with bfloat16(net) if self.half else nullcontext():
                yield
        finally:
            net.coefficients.flat = own

    def variables(self, values: Tensor) -> Tensor:
        """See ``Fold``."""
        coefficients = self.model.net.coefficients
        if len(values) != len(coefficients.flat):
            # Of its own: autograd remembers the shape that a parameter had.
            coefficients.flat = nn.Parameter(values)
        return coefficients.flat

    def losses(self, inputs: Tensor, batch: Batch, objective: Objective) -> Tensor:
        """See ``Fold``."""
        if self._chain is not None:
            features = self._chain.features(inputs, batch)
            if features is not None:
                with torch.autocast(features.device.type, enabled=False):
                    return objective.losses(features, batch)
        with by_batch(self.model.net.statistics, batch):
            return self._compute(self.model.suffix, inputs, batch, objective)

    def sent(self, values: Tensor) -> Tensor:
        """See ``Fold``."""
        coefficients = self.model.net.coefficients
        coefficients.flat = nn.Parameter(values)
        return coefficients.sent().cpu()

    @cached_property
    def _chain(self) -> Chain | None:
        """The suffix fused; on a CPU."""
        if self.device.type != "cpu" or self.compiled:
            return None
        return chain_of(self.model, self.constants, half=self.half)

    @cached_property
    def _compute(self) -> Callable[[nn.Module, Tensor, Batch, Objective], Tensor]:
        return torch.compile(_losses, dynamic=False) if self.compiled else _losses


def by_batch(statistics: BatchStatistics | None, batch: Batch) -> AbstractContextManager[None]:
    """Within it the BatchNorms of those clients that want it normalise by the batch."""
    if statistics is None or batch.local is None:
        return nullcontext()
    return statistics.of(batch.real.float(), batch.local)


def _losses(suffix: nn.Module, inputs: Tensor, batch: Batch, objective: Objective) -> Tensor:
    features = suffix(inputs).float().view(*batch.real.shape, -1)
    with torch.autocast(features.device.type, enabled=False):
        return objective.losses(features, batch)


@torch.no_grad()
def features_at(
    model: SplitModel, store: ImageStore, rows: Tensor, vector: Tensor, workers: int = 0
) -> Tensor:
    """Features ``[N, d]`` of ``rows`` with coefficients ``vector`` ``[D]``, on the device."""
    store.ensure(rows, workers)
    net = model.net.eval()
    net.coefficients.load(vector)
    cuda = net.device.type == "cuda"
    parts = rows.to(net.device).split(_CUDA_EVALUATION_BATCH if cuda else _CPU_EVALUATION_BATCH)

    @torch.no_grad()
    def work(suffix: nn.Module, part: Tensor) -> Tensor:
        features: Tensor = suffix(store.inputs(part))
        advance(len(part))
        return features

    return torch.cat([*on_each_core(parts, 0 if cuda else workers, lambda: model.suffix, work)])
