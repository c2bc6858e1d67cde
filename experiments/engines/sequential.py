"""The reference engine: every client's ClientApp in this process, one after another."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

from flwr.app import Context, Error, Message, RecordDict
from flwr.serverapp import Grid
from flwr.supercore.run import Run

from recast_core.settings import Settings
from server.flower import empty_run, number

ClientCall = Callable[[Message, Context], Message]
RUN_ID = 1


class SequentialGrid(Grid):
    """A grid of simulated nodes. Node ``i + 1`` has partition ``i`` of every task.

    Each node keeps its own Context and its own cache folder, as if it were a machine.
    """

    def __init__(
        self,
        clients: int,
        client_app: ClientCall,
        settings: Settings,
        caches: Path,
        answered: Callable[[], None] = lambda: None,
    ) -> None:
        """Prepare ``clients`` nodes; ``answered`` is called after each reply."""
        self._app = client_app
        self._answered = answered
        self._run = empty_run(RUN_ID)
        self._replies: dict[str, Message] = {}
        self._contexts = {
            index + 1: Context(
                run_id=RUN_ID,
                node_id=index + 1,
                node_config={
                    "partition-id": index,
                    "num-partitions": clients,
                    "cache-dir": str(caches / str(index)),
                },
                state=RecordDict(),
                run_config=dict(settings.as_dict()),
            )
            for index in range(clients)
        }

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
        return list(self._contexts)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Run each message's ClientApp now; its reply waits to be pulled."""
        names = []
        for message in messages:
            name = number(message)
            self._replies[name] = self._answer(message)
            self._answered()
            names.append(name)
        return names

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """The replies to these messages, each once."""
        return [self._replies.pop(name) for name in message_ids if name in self._replies]

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        """Run the messages and return the replies; nothing here takes longer than the work."""
        return self.pull_messages(self.push_messages(messages))

    def _answer(self, message: Message) -> Message:
        context = self._contexts[message.metadata.dst_node_id]
        try:
            reply = self._app(message, context)
        except Exception as error:  # Flower turns a crashed ClientApp into an error reply too
            reply = Message(
                Error(code=1, reason=f"{type(error).__name__}: {error}"), reply_to=message
            )
        number(reply)
        return reply
