"""What an update may be, whoever sent it: pure functions over a round's contributions."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from recast_core.start import Start
from server.rounds.contribution import Contribution
from server.rounds.rules.stacked import lengths as lengths_of
from server.rounds.rules.stacked import lower_median

# Times the median length of a round beyond which an update is not clipped but refused.
FAR = 5.0
# Times the length of the start's own vector beyond which an update is refused, alone or not.
BEYOND = 10.0


def spread(start: Start) -> float:
    """The length of a vector that moves everything by about as much as there is of it.

    That of the start's own coefficients, or of one in each place where that is more: a shift
    bank's coefficients start at 0, and 1 goes all the way to a source's domain.
    """
    own = start.initial_vector.double()
    return max(float(own.square().sum().sqrt()), math.sqrt(max(own.numel(), 1)))


def implausible(contributions: Mapping[int, Contribution], usual: float) -> dict[int, str]:
    """Why contributions cannot be what a client learned, by the node that sent them.

    One is refused that is longer than ``BEYOND`` times ``usual``; or that is more than ``FAR``
    times as long as the round's median of those that are not zero, and longer than ``usual`` / 10:
    of two small ones nothing tells which to trust.

    Args:
        contributions: by node.
        usual: of ``spread``.
    """
    if not contributions:
        return {}
    rows = np.stack([one.offsets for one in contributions.values()]).astype(np.float64)
    lengths = dict(zip(contributions, lengths_of(rows).tolist(), strict=True))
    median = lower_median(np.array([length for length in lengths.values() if length > 0]))
    found = {}
    for node, length in lengths.items():
        if length > BEYOND * usual:
            found[node] = f"an update of length {length:.3g}, the bank's spread is {usual:.3g}"
        elif length > FAR * median and length > usual / 10:
            found[node] = f"an update of length {length:.3g}, the round's median is {median:.3g}"
    return found
