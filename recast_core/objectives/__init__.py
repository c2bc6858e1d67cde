"""What training lowers: one objective a file."""

from recast_core.objectives.base import Batch, Objective, check_labels
from recast_core.objectives.cross_entropy import CrossEntropy
from recast_core.objectives.split_ridge import SplitRidge

__all__ = ["Batch", "CrossEntropy", "Objective", "SplitRidge", "check_labels"]
