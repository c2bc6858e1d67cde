"""A grid that answers the messages of a round together."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from typing import Self

from flwr.app import Message

from client.answer import answer
from client.asked import Asked
from client.turn import Engine, take
from experiments.engines.folded.data import NodeRows
from experiments.engines.folded.garbage import Settled
from experiments.engines.folded.models import FoldedModel, FoldedOptions
from experiments.engines.folded.nodes import Held, SimulatedNode
from experiments.engines.folded.together import TimeSplit, Together
from experiments.engines.local import LocalGrid
from protos import recast_v1_pb2 as pb
from protos.content import from_content, letter_back
from recast_core.settings import Settings
from recast_core.start import Start


class FoldedGrid(LocalGrid):
    """Messages pushed together are answered together, each as ``client.app`` answers it.

    Nothing is kept per node but what it was told. Within a ``with``, what greeting left behind is
    kept out of garbage collections, until its end, and the first round's images are made ready.

    Attributes:
        held: what all nodes have in common.
        time: where the time went.
    """

    def __init__(
        self,
        clients: int,
        settings: Settings,
        answered: Callable[[], None] = lambda: None,
        options: FoldedOptions | None = None,
        elsewhere: Callable[[bytes, bytes, str], None] | None = None,
    ) -> None:
        """Prepare ``clients`` nodes.

        Args:
            clients: how many.
            settings: of the run.
            answered: called once for each reply.
            options: how they train.
            elsewhere: see ``Held``, for grids whose ``engine`` works elsewhere.
        """
        super().__init__(clients, answered)
        self.held = Held(clients, settings, options or FoldedOptions(), elsewhere)
        self.time = TimeSplit()
        self._settled: Settled | None = None
        self._nodes = [SimulatedNode(number, self.held) for number in range(clients)]

    def __enter__(self) -> Self:
        self._settled = Settled()
        return self

    def __exit__(self, *_: object) -> None:
        if self._settled is not None:
            self._settled.restore()
            self._settled = None

    def hold(self, start: Start, numbers: Iterable[int]) -> None:
        """See ``LocalGrid``."""
        for number in numbers:
            self._nodes[number].keep(start, "")

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Answer the messages now, together, and keep the time."""
        messages = list(messages)
        began, spent = time.monotonic(), self.time.training + self.time.evaluating
        names = list(super().push_messages(messages))
        spent = self.time.training + self.time.evaluating - spent
        self.time.grid += time.monotonic() - began - spent
        self.time.clients += len(names)
        if self._settled is not None and messages and _greets(messages[0]):
            self.held.prepare()
            self._settled.settle()
        return names

    def answers(self, messages: Sequence[Message]) -> Iterable[Message]:
        """Replies; those to the same message go together."""
        together: dict[bytes, list[int]] = {}
        for index, message in enumerate(messages):
            together.setdefault(from_content(message) or b"", []).append(index)
        bodies: dict[int, pb.ToServer] = {}
        for content, indices in together.items():
            nodes = [self._nodes[messages[index].metadata.dst_node_id - 1] for index in indices]
            bodies |= zip(indices, self._take(Asked(content), nodes), strict=True)
        for index, message in enumerate(messages):
            yield letter_back(bodies[index].SerializeToString(), message)

    def engine(self, finished: Callable[[int], None]) -> Engine[FoldedModel, NodeRows]:
        """Who does the work; ``finished`` is told how many clients are done while others train."""
        return Together(self.time, finished)

    def _take(self, asked: Asked, nodes: Sequence[SimulatedNode]) -> list[pb.ToServer]:
        left = len(nodes)

        def finished(count: int) -> None:
            nonlocal left
            left -= count
            for _ in range(count):
                self._answered()

        turns = [answer(asked, node) for node in nodes]
        replies = take(turns, self.engine(finished))
        finished(left)
        return replies


def _greets(message: Message) -> bool:
    return message.metadata.message_type.startswith("query.")
