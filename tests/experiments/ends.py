"""Both ends of a federation in one process, whatever carries their frames."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from flwr.app import Context, Message

from client.link import LocalApp
from client.link.conversation import Conversation
from protos import recast_v1_pb2 as pb
from protos.content import from_content, to_content
from recast_core.backoff import Backoff
from recast_core.setting_values import Value
from recast_core.wire.codec import encode
from server.link.identity import node_id
from server.link.session_grid import SessionGrid

Handle = Callable[[str, bytes], bytes]
App = Callable[[Message, Context], Message]


def patiently(condition: Callable[[], Any], seconds: float = 20) -> None:
    """Return as soon as ``condition()`` holds."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it never came to pass"
        time.sleep(0.01)


def settled(counted: Callable[[], Any], seconds: float = 0.3, longest: float = 20) -> Any:
    """What ``counted()`` gives once nothing has passed for a while."""
    end = time.monotonic() + longest
    while time.monotonic() < end:
        before = counted()
        time.sleep(seconds)
        if counted() == before:
            return before
    raise AssertionError("the link does not fall silent")


class Client:
    """A client's conversation on an event loop in a thread; its application is a function."""

    def __init__(
        self,
        kind: Callable[..., Conversation],
        server: object,
        name: str,
        cache: Path,
        handle: Handle = lambda type_, body: body,
        *,
        app: App | None = None,
        config: dict[str, Value] | None = None,
    ) -> None:
        """Begin at once; ``server`` is what ``kind`` takes first."""
        self.asked: list[tuple[str, bytes]] = []
        self.events: list[str] = []
        self.ended: BaseException | str | None = None
        self._ready = threading.Event()

        def own(message: Message, context: Context) -> Message:
            body = from_content(message)
            assert body is not None
            self.asked.append((message.metadata.message_type, body))
            self.settings = dict(context.run_config)
            answer = to_content(handle(message.metadata.message_type, body))
            return Message(answer, reply_to=message)

        local = LocalApp(app or own, config or {}, cache)
        backoff = Backoff(0.05, 0.2)
        self.link = kind(server, name, local, backoff=backoff, heard=self.events.append)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        self._ready.wait()

    def _run(self) -> None:
        async def go() -> None:
            self._loop = asyncio.get_running_loop()
            self._task = asyncio.ensure_future(self.link.run())
            self._ready.set()
            try:
                await self._task
                self.ended = "finished"
            except asyncio.CancelledError:
                self.ended = "stopped"
            except Exception as error:
                self.ended = error

        asyncio.run(go())

    def stop(self) -> None:
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._task.cancel)
        self._thread.join(10)
        assert not self._thread.is_alive()

    def wait(self) -> BaseException | str | None:
        self._thread.join(20)
        return self.ended


def answers(
    grid: SessionGrid, body: bytes, names: Sequence[str], type_: str, timeout: float
) -> list[Any]:
    """The answers of clients, in the order of their names."""
    messages = [Message(to_content(body), node_id(name), type_) for name in names]
    replies = grid.send_and_receive(messages, timeout=timeout)
    found = {
        reply.metadata.src_node_id: reply.error.reason if reply.has_error() else from_content(reply)
        for reply in replies
    }
    return [found.get(node_id(name)) for name in names]


def broadcast(round_: int) -> bytes:
    """A round's broadcast of 24 numbers."""
    hyper = pb.Hyperparameters(epochs=2, batch=32, learning_rate=0.02, bits=8, seed=7)
    offsets = encode(np.linspace(-1, 1, 24, dtype=np.float32), 16).data
    train = pb.Broadcast(
        bank=0xDEADBEEF, task=1, round=round_, coefficients=offsets, hyperparameters=hyper
    )
    return pb.ToClient(train=train).SerializeToString()


def update(round_: int) -> bytes:
    """An update of 24 numbers of 8 bits."""
    encoded = encode(np.linspace(-1, 1, 24, dtype=np.float32), 8)
    made = pb.Update(
        bank=0xDEADBEEF,
        task=1,
        round=round_,
        examples=200,
        scale=encoded.scale,
        coefficients=encoded.data,
    )
    return pb.ToServer(update=made).SerializeToString()
