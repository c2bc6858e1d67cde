"""What evaluations come to: a count of test images is a claim, and so is what was right."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

from protos import recast_v1_pb2 as pb
from server.rounds.weights import limited

# What sends no byte beside a kept head, and where an evaluation says how much of it was right.
_BASELINES = {
    "deployed": "deployed_correct",
    "statistics": "head_only_correct",
    "local head": "local_head_correct",
    "either head": "chosen_correct",
}


class Tally:
    """The evaluations of one task."""

    def __init__(self, told: Sequence[pb.Evaluation], most: float) -> None:
        """Count them; no client's test images for more than ``most`` times the median, 0 for all.

        Evaluations without test images count nothing; one at least must have some.
        """
        self._told = [one for one in told if one.examples]
        self._weights = limited([one.examples for one in self._told], most)

    def weighted(self, count: str) -> float:
        """The fraction that was right by the field ``count``, over all test images."""
        right = sum(
            getattr(one, count) * (weight / one.examples)
            for one, weight in zip(self._told, self._weights, strict=True)
        )
        return float(right / sum(self._weights))

    def median(self, count: str) -> float:
        """The median over the clients of the fraction that was right by the field ``count``."""
        return float(median(getattr(one, count) / one.examples for one in self._told))

    def baselines(self) -> dict[str, float]:
        """What sends no byte beside a kept head."""
        return {name: self.weighted(count) for name, count in _BASELINES.items()}
