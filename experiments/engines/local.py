"""What grids in this process have in common: nodes by number, and replies that wait."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable, Sequence

from flwr.app import Message, RecordDict
from flwr.serverapp import Grid
from flwr.supercore.run import Run

from server.flower import empty_run, number

RUN_ID = 1


class LocalGrid(Grid):
    """A grid of simulated nodes, numbered from 1. Node ``i + 1`` has partition ``i`` of every task.

    Subclasses say how messages that were pushed together are answered.
    """

    def __init__(self, clients: int, answered: Callable[[], None]) -> None:
        """Prepare ``clients`` nodes; ``answered`` is called once for each reply."""
        self._clients = clients
        self._answered = answered
        self._run = empty_run(RUN_ID)
        self._replies: dict[str, Message] = {}

    @abstractmethod
    def answers(self, messages: Sequence[Message]) -> Iterable[Message]:
        """The replies to ``messages``, in their order."""

    def set_run(self, run: Run) -> None:
        """Replace the run's description."""
        self._run = run

    @property
    def run(self) -> Run:
        """The run's description."""
        return self._run

    def create_message(
        self,
        content: RecordDict,
        message_type: str,
        dst_node_id: int,
        group_id: str,
        ttl: float | None = None,
    ) -> Message:
        """A message to a node."""
        return Message(content, dst_node_id, message_type, ttl=ttl, group_id=group_id)

    def get_node_ids(self) -> Iterable[int]:
        """Every node."""
        return list(range(1, self._clients + 1))

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Answer the messages now; the replies wait to be pulled."""
        messages = list(messages)
        names = [number(message) for message in messages]
        for name, reply in zip(names, self.answers(messages), strict=True):
            number(reply)
            self._replies[name] = reply
        return names

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """The replies to these messages, each once."""
        return [self._replies.pop(name) for name in message_ids if name in self._replies]

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        """Answer the messages and return the replies; nothing here takes longer than the work."""
        return self.pull_messages(self.push_messages(messages))
