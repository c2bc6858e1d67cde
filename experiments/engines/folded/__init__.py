"""The folded engine: all clients of a round trained as one batch in this process."""

from experiments.engines.folded.grid import FoldedGrid
from experiments.engines.folded.models import FoldedOptions
from experiments.engines.folded.together import TimeSplit

__all__ = ["FoldedGrid", "FoldedOptions", "TimeSplit"]
