"""A grid whose nodes are trained by a crew of workers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from flwr.app import Message

from client.turn import Engine
from experiments.engines.crew.base import Crew, CrewError, Item
from experiments.engines.crew.spread import Spread
from experiments.engines.folded.data import NodeRows
from experiments.engines.folded.grid import FoldedGrid
from experiments.engines.folded.models import FoldedModel
from recast_core.errors import RecastError
from recast_core.settings import Settings


class CrewGrid(FoldedGrid):
    """The folded engine in several processes: what a client decides stays here, work goes there."""

    def __init__(
        self,
        clients: int,
        settings: Settings,
        crew: Crew,
        answered: Callable[[], None] = lambda: None,
    ) -> None:
        """Prepare ``clients`` nodes, which ``crew`` trains; the rest as ``FoldedGrid``."""
        super().__init__(clients, settings, answered, elsewhere=self._place)
        self._crew = crew

    def answers(self, messages: Sequence[Message]) -> Iterable[Message]:
        """See ``FoldedGrid``.

        Raises:
            RecastError: the workers cannot go on.
        """
        try:
            yield from super().answers(messages)
        except CrewError as error:
            raise RecastError(str(error)) from error

    def engine(self, finished: Callable[[int], None]) -> Engine[FoldedModel, NodeRows]:
        """The crew."""
        return Spread(self._crew, self.time, finished)

    def _place(self, sha256: bytes, content: bytes, method: str) -> None:
        """Have the crew hold a start that clients keep."""
        kind, fields = ("method", {"method": method}) if method else ("bank", {"content": content})
        self._crew.place(Item(kind, sha256.hex(), fields))
