"""What every source of templates does."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, ClassVar, Self

import numpy as np
from torch import Tensor

from recast_core.errors import RecastError

if TYPE_CHECKING:
    from recast_core.config import RecastConfig


class Source(ABC):
    """Makes one group's templates and starting coefficients.

    The random numbers come as a counter-based bit generator of the group's own (Salmon et al.,
    SC 2011), so that groups can be made in any order, and on any machine.

    Attributes:
        residual: its templates do not span the layers, so that only the residual form of a bank
            starts at the backbone.
        derivable: whoever has the backbone and the configuration makes the same bank on any
            machine, to the last bit, so that it need not be sent.
        alone: it needs nothing but the backbone.
    """

    residual: ClassVar[bool] = False
    derivable: ClassVar[bool] = False
    alone: ClassVar[bool] = True

    @classmethod
    def of(cls, config: RecastConfig) -> Self:
        """The source as a configuration wants it.

        Raises:
            RecastError: a source that needs more than the backbone.
        """
        return cls()

    def meta(self, config: RecastConfig) -> dict[str, str]:
        """What a bank's file says of how it was made, besides the name of the source."""
        return {"seed": str(config.seed)}

    @abstractmethod
    def __call__(
        self, weights: Tensor, templates: int | None, random: np.random.Philox
    ) -> tuple[Tensor, Tensor]:
        """Templates and coefficients for the layers of a group.

        Args:
            weights: float32 ``[L, *shape]``, finite, on the CPU.
            templates: n; ``None`` is L.
            random: bits for this group.

        Returns:
            ``T [n, *shape]`` and ``c [L, n]``, float32.

        Raises:
            RecastError: a number of templates that the source cannot make.
        """


def count_of(templates: int | None, layers: int) -> int:
    """N for a group of ``layers`` layers.

    Raises:
        RecastError: more templates than layers.
    """
    count = layers if templates is None else templates
    if count > layers:
        raise RecastError(
            f"{count} templates for a group of {layers} layers: {layers} already reproduce it "
            "exactly, ask for at most that many"
        )
    return count
