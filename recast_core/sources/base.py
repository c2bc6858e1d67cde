"""What every source of templates does."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from torch import Tensor

from recast_core.errors import RecastError


class Source(Protocol):
    """Makes one group's templates and starting coefficients.

    The random numbers come as a counter-based bit generator of the group's own (Salmon et al.,
    SC 2011), so that groups can be made in any order, and on any machine.
    """

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
        ...


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
