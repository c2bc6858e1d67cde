"""Both ends of a federation in one process, whatever carries their frames."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
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


# Only guards against waiting for ever: a machine that does much else may take its time.
LONG = 240.0
_STEP = 0.01


def patiently(condition: Callable[[], Any], seconds: float = LONG) -> None:
    """Return as soon as ``condition()`` holds, which is to be within ``seconds`` of this process.

    A second that is promised is one of a machine that has the time for it. So each look counts for
    what it was to wait, however much later the machine let it: threads of this process, which are
    to bring the condition about, are as late with what they do.
    """
    passed = 0.0
    while not condition():
        assert passed < seconds, "it never came to pass"
        time.sleep(_STEP)
        passed += _STEP


def settled(counted: Callable[[], Any], seconds: float = 0.3) -> Any:
    """What ``counted()`` gives once nothing has passed for ``seconds`` of this process."""
    before, quiet, end = counted(), 0.0, time.monotonic() + LONG
    while quiet < seconds:
        assert time.monotonic() < end, "the link does not fall silent"
        time.sleep(_STEP)
        quiet += _STEP
        if (now := counted()) != before:
            before, quiet = now, 0.0
    return before


def in_background(work: Callable[[], Any]) -> Future[Any]:
    """Begin ``work()`` in a thread; what it returns or raises."""
    found: Future[Any] = Future()

    def run() -> None:
        try:
            found.set_result(work())
        except BaseException as error:
            found.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return found


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
        with contextlib.suppress(RuntimeError):  # it ends by itself, and its loop is closed already
            self._loop.call_soon_threadsafe(self._task.cancel)
        self._thread.join(LONG)
        assert not self._thread.is_alive()

    def wait(self) -> BaseException | str | None:
        self._thread.join(LONG)
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
