"""The server's connection to a broker: made again when it breaks, left to a later server."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from google.protobuf.message import DecodeError

from protos import link_v1_pb2 as link
from protos.mqtt import Topics
from protos.mqtt_broker import Broker, Heard, Lost, Will
from protos.mqtt_faults import BrokerFaultError
from recast_core.backoff import Backoff

logger = logging.getLogger("recast.link")
# The first and the longest wait of a server for its broker.
WAITS = 0.5, 60.0
# For what a broker keeps to arrive.
SECONDS_TO_LOOK = 0.25
FLUSH_SECONDS = 5.0
MakeBroker = Callable[[Will, Heard, Lost], Broker]


class Line:
    """Says how things stand with the server, and hears what clients say."""

    def __init__(
        self,
        topics: Topics,
        make: MakeBroker,
        session: int,
        said: Callable[[str, bytes], None],
        lost: Lost,
    ) -> None:
        """Prepare; ``connect`` connects.

        Args:
            topics: of the federation.
            make: a connection to the broker.
            session: names this server process.
            said: is given the name of a client and its frame, in the connection's own thread.
            lost: is told why the connection has ended.
        """
        self._topics, self._make, self._session = topics, make, session
        self._said, self._lost = said, lost
        self._broker: Broker | None = None
        self._worked = False
        self._looked, self._later = threading.Event(), False
        self._began = time.time_ns() // 1_000_000

    @property
    def broker(self) -> Broker:
        """The connection that was made last."""
        assert self._broker is not None
        return self._broker

    @property
    def there(self) -> bool:
        """Whether there ever was one."""
        return self._broker is not None

    def connect(self, pause: Callable[[float], bool]) -> bool:
        """Connect again and again; ``pause`` waits some seconds, and says whether to go on.

        Returns:
            Whether the connection is there.

        Raises:
            BrokerFaultError: that does not help.
        """
        will = Will(self._topics.serving, self._presence(link.Serving.STATE_AWAY), retain=True)
        backoff = Backoff(*WAITS)
        while True:
            self._looked.clear()
            broker = self._make(will, self._heard, self._lost)
            try:
                broker.connect([(self._topics.every_up, 1), (self._topics.everything, 1)])
                break
            except BrokerFaultError as fault:
                if fault.permanent and not self._worked:
                    raise
                logger.warning("no broker: %s; trying again", fault)
                if not pause(backoff.next()):
                    return False
        self._broker = broker
        if self._worked:
            # Who was cut off may have been replaced; brokers do not always say so.
            self._looked.wait(SECONDS_TO_LOOK)
            self.check()
        self._worked = True
        return True

    def check(self) -> None:
        """Leave the topics to a server that came later.

        Raises:
            BrokerFaultError: there is one.
        """
        if self._later:
            self.broker.close()
            raise BrokerFaultError("a later server is there", replaced=True)

    def say(self, state: link.Serving.State) -> None:
        """Tell clients how things stand, now and when they come."""
        self.broker.publish(self._topics.serving, self._presence(state), retain=True)

    def leave(self) -> None:
        """End the connection when all is said."""
        self.broker.flush(FLUSH_SECONDS)
        self.broker.hush([self._topics.every_up, self._topics.everything], FLUSH_SECONDS)
        self.broker.close()

    def _presence(self, state: link.Serving.State) -> bytes:
        serving = link.Serving(state=state, began=self._began)
        return link.FromServer(session=self._session, serving=serving).SerializeToString()

    def _heard(self, topic: str, payload: bytes) -> None:
        head, _, last = topic.rpartition("/")
        if head == f"{self._topics.base}/up":
            self._said(last, payload)
            return
        try:
            frame = link.FromServer.FromString(payload)
        except DecodeError:
            frame = link.FromServer()
        other = frame.session != self._session
        if topic == self._topics.serving:
            if other and self._worked and frame.serving.began > self._began:
                self._later = True
            self._looked.set()
        elif other and payload and self._broker is not None:
            # Another server process left it with the broker.
            self._broker.publish(topic, b"", retain=True)
