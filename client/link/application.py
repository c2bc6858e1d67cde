"""The ClientApp in a thread of its own, so that a long training does not silence the stream."""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from flwr.app import Context, Message

from client.link.flower import incoming
from client.link.memory import LinkMemory
from protos import link_v1_pb2 as link
from protos.content import from_content
from protos.flower import RUN_ID
from protos.link import MAX_REPLY
from recast_core.setting_values import Value

logger = logging.getLogger("recast.link")
ClientCall = Callable[[Message, Context], Message]


@dataclass(frozen=True)
class LocalApp:
    """The ClientApp as it runs on this machine.

    Attributes:
        app: Flower's.
        node_config: of its Context.
        cache: a folder for what must survive a restart.
        overrides: settings of the run that are different here.
    """

    app: ClientCall
    node_config: Mapping[str, Value]
    cache: Path
    overrides: Mapping[str, Value] = field(default_factory=dict)


class Application:
    """Runs one message at a time. The models that the ClientApp keeps stay loaded between them."""

    def __init__(
        self,
        local: LocalApp,
        memory: LinkMemory,
        answered: Callable[[int, int, bytes], None],
    ) -> None:
        """Start the thread.

        Args:
            local: what runs.
            memory: of this client; its state is the Context's.
            answered: is given session, number and the frame of an answer, in the thread.
        """
        self._local, self._memory = local, memory
        self._answered = answered
        self._work: queue.SimpleQueue[tuple[int, int, str, bytes]] = queue.SimpleQueue()
        self.busy = False
        # A daemon: nobody waits for a training whose answer nobody will fetch.
        threading.Thread(target=self._run, name="recast-app", daemon=True).start()

    def submit(self, session: int, number: int, type_: str, body: bytes) -> None:
        """Answer a message when those before it are done."""
        self._work.put((session, number, type_, body))

    def _run(self) -> None:
        while True:
            session, number, type_, body = self._work.get()
            if session != self._memory.session:
                continue
            self.busy = True
            try:
                frame = self._answer(number, type_, body)
            finally:
                self.busy = False
            self._answered(session, number, frame.SerializeToString())

    def _answer(self, number: int, type_: str, body: bytes) -> link.FromClient:
        memory = self._memory
        context = Context(
            RUN_ID, 0, dict(self._local.node_config), memory.state, dict(memory.settings)
        )
        try:
            reply = self._local.app(incoming(number, type_, body), context)
            memory.keep()
            answer = from_content(reply)
        except Exception as error:  # Flower turns a crashed ClientApp into an error reply too
            logger.exception("the application failed")
            return link.FromClient(number=number, error=f"{type(error).__name__}: {error}"[:200])
        if answer is None:
            return link.FromClient(number=number, error="the application gave no answer of ours")
        if len(answer) > MAX_REPLY:
            return link.FromClient(number=number, error=f"an answer of {len(answer)} bytes")
        return link.FromClient(number=number, reply=answer)
