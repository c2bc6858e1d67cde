"""The name of banks that other networks besides the backbone are needed for."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, NoReturn, Self

import numpy as np
from torch import Tensor

from recast_core.errors import RecastError
from recast_core.sources.base import Source

if TYPE_CHECKING:
    from recast_core.config import RecastConfig


class OtherNetworks(Source):
    """The source ``task-vectors``: a configuration can name it, but no backbone alone makes it."""

    residual: ClassVar[bool] = True
    alone: ClassVar[bool] = False

    @classmethod
    def of(cls, config: RecastConfig) -> Self:
        """Say what makes such a bank.

        Raises:
            RecastError: always.
        """
        _refuse()

    def __call__(
        self, weights: Tensor, templates: int | None, random: np.random.Philox
    ) -> tuple[Tensor, Tensor]:
        """See ``of``."""
        _refuse()


def _refuse() -> NoReturn:
    raise RecastError(
        "task vectors are differences of fine-tuned networks: call "
        "recast_core.sources.task_vectors.task_vector_bank with them"
    )
