"""The reference engine: every client's ClientApp in this process, one after another."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import torch
from flwr.app import Context, Error, Message, RecordDict

from experiments.engines.holding import place
from experiments.engines.local import LocalGrid
from protos.flower import RUN_ID
from recast_core.settings import Settings
from recast_core.start import Start

ClientCall = Callable[[Message, Context], Message]


class SequentialGrid(LocalGrid):
    """Each node keeps its own Context and its own cache folder, as if it were a machine.

    A simulated client computes in one thread, here as on the other engines: the number of threads
    changes a product's last bits, and with them where training ends.
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
        super().__init__(clients, answered)
        self._app, self._caches = client_app, caches
        self._contexts = {
            index + 1: Context(
                run_id=RUN_ID,
                node_id=index + 1,
                node_config={
                    "partition-id": index,
                    "num-partitions": clients,
                    "cache-dir": str(caches / str(index)),
                    "simulated": True,
                },
                state=RecordDict(),
                run_config=dict(settings.as_dict()),
            )
            for index in range(clients)
        }

    def hold(self, start: Start, numbers: Iterable[int]) -> None:
        """See ``LocalGrid``."""
        place(self._caches, start, numbers)

    def answers(self, messages: Sequence[Message]) -> Iterable[Message]:
        """Run each message's ClientApp."""
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            for message in messages:
                yield self._answer(message)
                self._answered()
        finally:
            torch.set_num_threads(threads)

    def _answer(self, message: Message) -> Message:
        try:
            return self._app(message, self._contexts[message.metadata.dst_node_id])
        except Exception as error:  # Flower turns a crashed ClientApp into an error reply too
            return Message(
                Error(code=1, reason=f"{type(error).__name__}: {error}"), reply_to=message
            )
