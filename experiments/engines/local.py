"""What grids in this process have in common: nodes by number, and replies that wait."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable, Sequence

from flwr.app import Message

from recast_core.pulse import Taught, hearing
from recast_core.start import Start
from server.flower import OwnGrid, number


class LocalGrid(OwnGrid):
    """A grid of simulated nodes, numbered from 1. Node ``i + 1`` has partition ``i`` of every task.

    Subclasses say how messages that were pushed together are answered.

    Attributes:
        at_once: messages that are best pushed together; more of them take memory and no less time.
    """

    at_once = 20_000

    def __init__(self, clients: int, answered: Callable[[], None]) -> None:
        """Prepare ``clients`` nodes; ``answered`` is called once for each reply."""
        self._clients = clients
        self._answered = answered
        super().__init__()
        self._replies: dict[str, Message] = {}
        self._losses: dict[tuple[int, int, int], float] = {}

    @abstractmethod
    def answers(self, messages: Sequence[Message]) -> Iterable[Message]:
        """The replies to ``messages``, in their order."""

    def hold(self, start: Start, numbers: Iterable[int]) -> None:
        """Let the nodes of these partitions hold the bank, where nodes keep one at all."""

    def get_node_ids(self) -> Iterable[int]:
        """Every node."""
        return list(range(1, self._clients + 1))

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Answer the messages now; the replies wait to be pulled."""
        messages = list(messages)
        names = [number(message) for message in messages]
        with hearing(self._hear, everywhere=False):
            for name, reply in zip(names, self.answers(messages), strict=True):
                number(reply)
                self._replies[name] = reply
        return names

    def take_losses(self) -> dict[tuple[int, int, int], float]:
        """What clients learned since this was last called: by node, task and round."""
        losses, self._losses = self._losses, {}
        return losses

    def _hear(self, taught: Taught) -> None:
        self._losses[taught.client + 1, taught.task, taught.round] = taught.loss

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """The replies to these messages, each once."""
        return [self._replies.pop(name) for name in message_ids if name in self._replies]

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        """Answer the messages and return the replies; nothing here takes longer than the work."""
        return self.pull_messages(self.push_messages(messages))
