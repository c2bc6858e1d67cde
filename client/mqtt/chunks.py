"""Parts of large bodies, which the broker keeps: asked for one by one."""

from __future__ import annotations

import asyncio

from client.link.fetch import InterruptedFetchError
from protos.mqtt_broker import Broker

SECONDS = 60.0


class Chunks:
    """Subscribes to a topic for as long as it takes to hear what is kept there."""

    def __init__(self) -> None:
        """There is no broker yet."""
        self._broker: Broker | None = None
        self._there = asyncio.Event()
        self._waiting: dict[str, asyncio.Future[bytes]] = {}

    def begin(self, broker: Broker) -> None:
        """There is a connection."""
        self._broker = broker
        self._there.set()

    def end(self) -> None:
        """There is none any more."""
        self._broker = None
        self._there.clear()
        for waiting in self._waiting.values():
            if not waiting.done():
                waiting.set_exception(InterruptedFetchError(": the broker has gone"))

    def take(self, topic: str, payload: bytes) -> bool:
        """Whether this was waited for."""
        waiting = self._waiting.get(topic)
        if waiting is not None and not waiting.done():
            waiting.set_result(payload)
        return waiting is not None

    async def get(self, topic: str) -> bytes:
        """What is kept there.

        Raises:
            InterruptedFetchError: the connection ended, or nothing is there yet.
        """
        await self._there.wait()
        broker = self._broker
        assert broker is not None
        waiting: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._waiting[topic] = waiting
        broker.subscribe(topic)
        try:
            async with asyncio.timeout(SECONDS):
                return await waiting
        except TimeoutError as error:
            raise InterruptedFetchError(": the broker has no more of it yet") from error
        finally:
            del self._waiting[topic]
            if self._broker is broker:
                broker.unsubscribe(topic)
