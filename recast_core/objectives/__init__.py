"""What training lowers: one objective a file."""

from __future__ import annotations

from torch import Tensor, nn

from recast_core.objectives.base import Batch, Objective, check_labels
from recast_core.objectives.cross_entropy import CrossEntropy, outputs_of
from recast_core.objectives.label_free import LabelFree, collapsed
from recast_core.objectives.split_ridge import SplitRidge, split_ridge_logits

OBJECTIVES = ("split-ridge", "cross-entropy", "label-free")
"""By their number on the wire."""


def objective_of(name: str, head: nn.Module, classes: int, mix: Tensor | None = None) -> Objective:
    """The objective of this name.

    Args:
        name: of ``OBJECTIVES``.
        head: the deployed classifier, which those use that keep it.
        classes: of the task, for the one that does not.
        mix: float32 ``[C]``, of one client, for the one that asks for no labels.
    """
    if name == "cross-entropy":
        return CrossEntropy(head)
    return LabelFree(head, mix) if name == "label-free" else SplitRidge(classes)


__all__ = [
    "OBJECTIVES",
    "Batch",
    "CrossEntropy",
    "LabelFree",
    "Objective",
    "SplitRidge",
    "check_labels",
    "collapsed",
    "objective_of",
    "outputs_of",
    "split_ridge_logits",
]
