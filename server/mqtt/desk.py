"""The server's place at the broker: who says what goes into sessions, and what is due goes out.

One thread connects, publishes and connects again; what comes is dealt with in the broker's own.
"""

from __future__ import annotations

import logging
import queue
import random
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from google.protobuf.message import DecodeError

from protos import link_v1_pb2 as link
from protos.mqtt import Topics
from protos.mqtt_broker import Broker, Heard, Lost, Will
from protos.mqtt_faults import BrokerFaultError
from recast_core.errors import RecastError
from server.link.admission import Admission
from server.link.bodies import Bodies
from server.link.identity import DeniedError
from server.link.limits import SECONDS_TO_LOOK
from server.link.session import RefusedFrameError, Session
from server.link.sessions import Sessions
from server.mqtt.intake import Intake, Talk
from server.mqtt.proof import Proofs
from server.mqtt.shelf import Shelf

logger = logging.getLogger("recast.link")
FIRST_WAIT, LONGEST_WAIT = 0.5, 60.0
FLUSH_SECONDS = 5.0
KEPT_NUMBERS = 1024
MakeBroker = Callable[[Will, Heard, Lost], Broker]


@dataclass(frozen=True)
class Post:
    """A frame that is published once for many clients, and the names of these."""

    slot: int
    number: int
    frame: bytes
    names: Sequence[str]


class Desk:
    """Connects sessions with topics."""

    def __init__(
        self,
        topics: Topics,
        make: MakeBroker,
        sessions: Sessions,
        admission: Admission,
        bodies: Bodies,
        proofs: Proofs | None,
        own_name: str,
    ) -> None:
        """Prepare; ``open`` connects.

        Args:
            topics: of the federation.
            make: a connection to the broker.
            sessions: of the clients.
            admission: whether they may go on.
            bodies: that are fetched.
            proofs: of who joins; ``None`` where the broker's word is all there is.
            own_name: of this server at the broker, which no client may have.
        """
        self._topics, self._make, self._sessions = topics, make, sessions
        self._admission = admission
        self._broker: Broker | None = None
        self._queue: queue.SimpleQueue[str | Post | bytes | BrokerFaultError | None] = (
            queue.SimpleQueue()
        )
        self._intake = Intake(sessions, admission, proofs, own_name, self._queue.put, self._dismiss)
        self._posted: dict[int, int] = {}
        self._slots: dict[int, int] = {}
        self._shelf = Shelf(topics, bodies)
        self._opened = threading.Event()
        self._finished = self._stopping = False
        self.fault: RecastError | None = None
        self._thread = threading.Thread(target=self._run, name="recast-mqtt", daemon=True)

    def open(self) -> None:
        """Connect, however long it takes.

        Raises:
            RecastError: waiting would not help.
        """
        self._thread.start()
        self._opened.wait()
        if self.fault is not None:
            raise self.fault

    def post(self, post: Post) -> None:
        """Publish once for many; their sessions hold the message already."""
        self._queue.put(post)

    def expect(self, number: int, slot: int) -> None:
        """A post of this number is to come: its sessions need not be sent it one by one."""
        self._posted[number] = slot
        while len(self._posted) > KEPT_NUMBERS:
            del self._posted[next(iter(self._posted))]

    def offer(self, sha256: bytes) -> None:
        """Have the broker keep a body in chunks."""
        self._queue.put(sha256)

    def close(self, *, finished: bool) -> None:
        """Say how it ended, and leave."""
        self._finished = finished
        self._queue.put(None)
        self._thread.join(2 * FLUSH_SECONDS)

    def _run(self) -> None:
        try:
            self._connect()
            while not self._stopping:
                try:
                    item = self._queue.get(timeout=SECONDS_TO_LOOK)
                except queue.Empty:
                    self._admission.expel_revoked()
                    continue
                self._do(item)
        except BrokerFaultError as fault:
            self._give_up(RecastError(str(fault)))
        except Exception as error:
            logger.exception("the server's talk with the broker failed")
            self._give_up(RecastError(f"the server's talk with the broker failed: {error}"))

    def _give_up(self, error: RecastError) -> None:
        with self._sessions.changed:
            self.fault = error
            self._sessions.changed.notify_all()
        self._opened.set()

    def _do(self, item: str | Post | bytes | BrokerFaultError | None) -> None:
        if isinstance(item, BrokerFaultError):
            if item.permanent or item.replaced:
                raise BrokerFaultError(
                    f"another server took the topics {self._topics.base}/…: stop one of them, or "
                    "give each a path of its own in --mqtt"
                    if item.replaced
                    else str(item)
                )
            logger.warning("the broker is gone: %s; connecting again", item)
            self._connect()
        elif isinstance(item, Post):
            self._publish_post(item)
        elif isinstance(item, bytes):
            assert self._broker is not None
            self._shelf.put(self._broker, item)
        elif item is None:
            self._leave()
        else:
            self._flush(item)

    # Connecting.

    def _connect(self) -> None:
        """Connect again and again.

        Raises:
            BrokerFaultError: that does not help.
        """
        away = self._presence(link.Serving.STATE_AWAY)
        failures = 0
        while True:
            broker = self._make(
                Will(self._topics.serving, away, retain=True), self._heard, self._queue.put
            )
            try:
                broker.connect([(self._topics.every_up, 1), (self._topics.everything, 1)])
                break
            except BrokerFaultError as fault:
                if fault.permanent and not self._opened.is_set():
                    raise
                wait = min(LONGEST_WAIT, FIRST_WAIT * 2.0 ** min(failures, 20))
                failures += 1
                logger.warning("no broker: %s; trying again in %.0f s", fault, max(1, wait))
                self._opened_or_stop(wait * random.uniform(0.5, 1.0))
                if self._stopping:
                    return
        self._broker = broker
        self._slots.clear()
        for session in self._sessions.all():
            # They join again when they hear that this server is here.
            if session.stream is not None:
                self._sessions.leave(session, session.stream)
        self._intake.talks.clear()
        self._shelf.put_again(broker)
        broker.publish(self._topics.serving, self._presence(link.Serving.STATE_HERE), retain=True)
        self._opened.set()

    def _opened_or_stop(self, seconds: float) -> None:
        """Wait, unless this server is to end meanwhile; what else is queued waits too."""
        kept = []
        try:
            while True:
                item = self._queue.get(timeout=seconds)
                if item is None:
                    self._stopping = True
                    return
                if not isinstance(item, BrokerFaultError):
                    kept.append(item)
                seconds = min(seconds, 1.0)
        except queue.Empty:
            pass
        finally:
            for item in kept:
                self._queue.put(item)

    def _presence(self, state: link.Serving.State) -> bytes:
        return link.FromServer(
            session=self._sessions.session_id, serving=link.Serving(state=state)
        ).SerializeToString()

    def _leave(self) -> None:
        self._stopping = True
        if self._broker is None:
            return
        state = link.Serving.STATE_FINISHED if self._finished else link.Serving.STATE_AWAY
        for slot in self._slots:
            self._broker.publish(self._topics.all(slot), b"", retain=True)
        self._shelf.clear(self._broker)
        self._broker.publish(self._topics.serving, self._presence(state), retain=True)
        for session in self._sessions.all():
            if session.stream is not None:
                self._sessions.leave(session, session.stream)
        self._broker.flush(FLUSH_SECONDS)
        self._broker.close()

    # What goes out.

    def _publish_post(self, post: Post) -> None:
        assert self._broker is not None
        for name in post.names:
            self._flush(name)
            session = self._sessions.get(name)
            if session is not None and session.stream is not None:
                session.down += len(post.frame)
        self._slots[post.slot] = post.number
        self._broker.publish(self._topics.all(post.slot), post.frame, retain=True, alias=True)

    def _flush(self, name: str) -> None:
        """Publish what a client is due, if it is there."""
        session, talk = self._sessions.get(name), self._intake.talks.get(name)
        if session is None or talk is None or session.stream is not talk.stream:
            return
        stream = talk.stream
        if talk.welcome is not None:
            self._tell(session, talk.welcome)
            talk.welcome = None
        while stream.refused is None and stream.dismissal is None:
            before = stream.sent
            frame = self._sessions.next_due(session, stream)
            if frame is None:
                return
            if not self._admission.may_go_on(session, stream, look=False):
                break
            number = stream.sent if stream.sent != before else 0
            if not self._is_posted(talk, number):
                self._tell(session, frame)
        if stream.refused is not None:
            self._dismiss(name, stream.refused)
        elif not self._finished:
            assert stream.dismissal is not None
            dismissal = link.Dismissal(reason=stream.dismissal)
            self._tell(session, link.FromServer(dismissal=dismissal).SerializeToString())
        self._sessions.leave(session, stream)

    def _is_posted(self, talk: Talk, number: int) -> bool:
        """Whether a client has a message, or gets it, from what is published for all."""
        slot = self._posted.get(number)
        if slot is None:
            return False
        return number > talk.since or self._slots.get(slot) == number

    def _tell(self, session: Session, frame: bytes) -> None:
        assert self._broker is not None
        session.down += len(frame)
        self._broker.publish(self._topics.down(session.name), frame, alias=False)

    def _dismiss(self, name: str, error: DeniedError | RefusedFrameError) -> None:
        reason = getattr(error, "reason", "denied")
        later = getattr(error, "retry", False)
        self._sessions.refuse(name, reason, str(error))
        dismissal = link.Dismissal(
            reason=link.Dismissal.REASON_LATER if later else link.Dismissal.REASON_DENIED,
            detail=str(error),
        )
        broker = self._broker
        if broker is not None:
            frame = link.FromServer(dismissal=dismissal).SerializeToString()
            broker.publish(self._topics.down(name), frame)

    # What comes in, in the connection's own thread.

    def _heard(self, topic: str, payload: bytes) -> None:
        head, _, last = topic.rpartition("/")
        if head == f"{self._topics.base}/up":
            self._intake.take(last, payload)
            return
        # What another server process left with the broker is taken away.
        try:
            stale = link.FromServer.FromString(payload).session != self._sessions.session_id
        except DecodeError:
            stale = True
        if stale and payload and topic != self._topics.serving and self._broker is not None:
            self._broker.publish(topic, b"", retain=True)
