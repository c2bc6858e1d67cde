"""Train many clients as one batch: they share every frozen layer and differ in a few numbers."""

from recast_core.folded.bank_fold import BankFold, features_at
from recast_core.folded.captured import Graphs
from recast_core.folded.chunks import Chunking
from recast_core.folded.heads import Judged, count_correct
from recast_core.folded.images import ImageStore
from recast_core.folded.method_fold import MethodFold
from recast_core.folded.schedule import FoldedClient
from recast_core.folded.split import SplitModel, split_model
from recast_core.folded.train import How, Trained, train

__all__ = [
    "BankFold",
    "Chunking",
    "FoldedClient",
    "Graphs",
    "How",
    "ImageStore",
    "Judged",
    "MethodFold",
    "SplitModel",
    "Trained",
    "count_correct",
    "features_at",
    "split_model",
    "train",
]
