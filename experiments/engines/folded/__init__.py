"""The folded engine: all clients of a round trained as one batch in this process."""

from experiments.engines.folded.grid import FoldedGrid, TimeSplit
from experiments.engines.folded.models import Options

__all__ = ["FoldedGrid", "Options", "TimeSplit"]
