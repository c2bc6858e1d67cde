"""What is due to clients goes out through the broker, in one thread that also keeps the line."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass

from protos import link_v1_pb2 as link
from protos.mqtt import Topics
from protos.mqtt_faults import BrokerFaultError
from recast_core.errors import RecastError
from server.link.admission import Admission
from server.link.bodies import Bodies
from server.link.identity import DeniedError
from server.link.limits import SECONDS_TO_LOOK
from server.link.session import RefusedFrameError, Session
from server.link.sessions import Sessions
from server.mqtt.intake import Intake, Talk
from server.mqtt.line import FLUSH_SECONDS, Line, MakeBroker
from server.mqtt.proof import Proofs
from server.mqtt.shelf import Shelf

logger = logging.getLogger("recast.link")
KEPT_NUMBERS = 1024


@dataclass(frozen=True)
class Post:
    """A frame that is published once for many clients, and the names of these."""

    slot: int
    number: int
    frame: bytes
    names: Sequence[str]


# A client to look after, a post, a body to keep, the end of a connection; None: the end of all.
Item = str | Post | bytes | BrokerFaultError | None


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
        self._topics, self._sessions, self._admission = topics, sessions, admission
        self._queue: queue.SimpleQueue[Item] = queue.SimpleQueue()
        put = self._queue.put
        self._intake = Intake(sessions, admission, proofs, own_name, put, self._send_away)
        self._line = Line(topics, make, sessions.session_id, self._intake.take, put)
        self._shelf = Shelf(topics, bodies)
        self._posted: dict[int, int] = {}
        self._slots: dict[int, int] = {}
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

    def expect(self, number: int, slot: int) -> None:
        """A post of this number is to come: its sessions need not be sent it one by one."""
        self._posted[number] = slot
        while len(self._posted) > KEPT_NUMBERS:
            del self._posted[next(iter(self._posted))]

    def post(self, post: Post) -> None:
        """Publish once for many; their sessions hold the message already."""
        self._queue.put(post)

    def offer(self, sha256: bytes) -> None:
        """Have the broker keep a body in chunks."""
        self._queue.put(sha256)

    def close(self, *, finished: bool) -> None:
        """Say how it ended, and leave."""
        self._finished = finished
        self._queue.put(None)
        self._thread.join(3 * FLUSH_SECONDS)

    def _run(self) -> None:
        try:
            self._connect()
            while not self._stopping:
                try:
                    item = self._queue.get(timeout=SECONDS_TO_LOOK)
                except queue.Empty:
                    self._line.check()
                    self._admission.expel_revoked()
                    continue
                self._do(item)
        except BrokerFaultError as fault:
            text = str(fault)
            if fault.replaced:
                text = (
                    f"another server took the topics {self._topics.base}/…: stop one of them, or "
                    "give each a path of its own in --mqtt"
                )
            self._give_up(RecastError(text))
        except Exception as error:
            logger.exception("the server's talk with the broker failed")
            self._give_up(RecastError(f"the server's talk with the broker failed: {error}"))

    def _give_up(self, error: RecastError) -> None:
        with self._sessions.changed:
            self.fault = error
            self._sessions.changed.notify_all()
        self._opened.set()

    def _do(self, item: Item) -> None:
        match item:
            case BrokerFaultError():
                if item.permanent or item.replaced:
                    raise item
                logger.warning("the broker is gone: %s; connecting again", item)
                self._connect()
            case Post():
                self._publish(item)
            case bytes():
                self._shelf.put(self._line.broker, item)
            case str():
                self._flush(item)
            case None:
                self._leave()

    def _connect(self) -> None:
        """Be at the broker; clients hear of it and join, also those that had.

        Raises:
            BrokerFaultError: it will not have this server.
        """
        if not self._line.connect(self._pause):
            return
        self._slots.clear()
        self._leave_sessions()
        self._intake.talks.clear()
        self._shelf.put_again(self._line.broker)
        self._line.say(link.Serving.STATE_HERE)
        self._opened.set()

    def _pause(self, seconds: float) -> bool:
        """Wait, and tell whether to go on; what is queued waits too."""
        kept: list[Item] = []
        end = time.monotonic() + seconds
        try:
            while True:
                item = self._queue.get(timeout=max(0.0, end - time.monotonic()))
                if item is None:
                    self._stopping = True
                    return False
                if not isinstance(item, BrokerFaultError):
                    kept.append(item)
        except queue.Empty:
            return True
        finally:
            for item in kept:
                self._queue.put(item)

    def _leave(self) -> None:
        self._stopping = True
        if not self._line.there:
            return
        for slot in self._slots:
            self._line.broker.publish(self._topics.all(slot), b"", retain=True)
        self._shelf.clear(self._line.broker)
        serving = link.Serving
        self._line.say(serving.STATE_FINISHED if self._finished else serving.STATE_AWAY)
        self._leave_sessions()
        self._line.leave()

    def _leave_sessions(self) -> None:
        for session in self._sessions.all():
            if session.stream is not None:
                self._sessions.leave(session, session.stream)

    def _publish(self, post: Post) -> None:
        for name in post.names:
            self._flush(name)
            session = self._sessions.get(name)
            if session is not None and session.stream is not None:
                session.down += len(post.frame)
        self._slots[post.slot] = post.number
        topic = self._topics.all(post.slot)
        self._line.broker.publish(topic, post.frame, retain=True, alias=True)

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
            self._send_away(name, stream.refused)
        elif stream.dismissal is not None and not self._finished:
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
        session.down += len(frame)
        self._line.broker.publish(self._topics.down(session.name), frame)

    def _send_away(self, name: str, why: DeniedError | RefusedFrameError | link.Dismissal) -> None:
        """Tell a client, in any thread, that it may not join or go on."""
        if not isinstance(why, link.Dismissal):
            later = why.retry
            self._sessions.refuse(name, getattr(why, "reason", "denied"), str(why))
            reasons = link.Dismissal
            why = link.Dismissal(
                reason=reasons.REASON_LATER if later else reasons.REASON_DENIED, detail=str(why)
            )
        if self._line.there:
            frame = link.FromServer(dismissal=why).SerializeToString()
            self._line.broker.publish(self._topics.down(name), frame)
