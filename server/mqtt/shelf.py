"""Large bodies that a broker keeps in chunks, until the server leaves."""

from __future__ import annotations

from protos.mqtt import BODY_CHUNK, Topics
from protos.mqtt_broker import Broker
from server.link.bodies import Bodies


class Shelf:
    """Publishes bodies, each once on a connection."""

    def __init__(self, topics: Topics, bodies: Bodies) -> None:
        self._topics, self._bodies = topics, bodies
        self._sizes: dict[bytes, int] = {}

    def put(self, broker: Broker, sha256: bytes) -> None:
        """Publish a body, unless it lies there or nobody refers to it any more."""
        body = self._bodies.get(sha256)
        if body is None or sha256 in self._sizes:
            return
        self._sizes[sha256] = len(body)
        for chunk, offset in enumerate(range(0, len(body), BODY_CHUNK)):
            content = body[offset : offset + BODY_CHUNK]
            broker.publish(self._topics.body(sha256, chunk), content, retain=True)

    def put_again(self, broker: Broker) -> None:
        """Publish once more what this broker may have lost."""
        known, self._sizes = self._sizes, {}
        for sha256 in known:
            self.put(broker, sha256)

    def clear(self, broker: Broker) -> None:
        """Have the broker forget all of it."""
        for sha256, size in self._sizes.items():
            for chunk in range(-(-size // BODY_CHUNK)):
                broker.publish(self._topics.body(sha256, chunk), b"", retain=True)
        self._sizes.clear()
