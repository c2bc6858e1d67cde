"""What comes from clients through a broker: it goes into sessions, or is refused."""

from __future__ import annotations

import logging
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field

from google.protobuf.message import DecodeError

from protos import link_v1_pb2 as link
from protos.link import MAX_FRAME, is_name
from protos.mqtt import MAX_JOIN
from server.exchange.hush import Bucket
from server.link.admission import Admission
from server.link.identity import DeniedError
from server.link.limits import SECONDS_OF_PENANCE, joins
from server.link.session import RefusedFrameError, Session, Stream
from server.link.sessions import Sessions
from server.mqtt.proof import Proofs

logger = logging.getLogger("recast.link")
KEPT_PENANCES = 1024


@dataclass
class Talk:
    """A stream, as it is through a broker.

    Attributes:
        stream: of the session.
        since: the last number published for all before it.
        welcome: the frame that begins it, until that has been published.
    """

    stream: Stream
    since: int
    welcome: bytes | None


@dataclass
class Penance:
    """One that was refused.

    Attributes:
        words: what it may still be told of that.
        until: monotonic seconds before which it is not listened to.
    """

    words: Bucket = field(default_factory=joins)
    until: float = 0.0


class Intake:
    """Takes clients' frames. All methods are called in the connection's own thread.

    Attributes:
        talks: of the clients that have joined, by name.
    """

    def __init__(
        self,
        sessions: Sessions,
        admission: Admission,
        proofs: Proofs | None,
        own_name: str,
        due: Callable[[str], None],
        send_away: Callable[[str, DeniedError | RefusedFrameError | link.Dismissal], None],
    ) -> None:
        """Nobody has joined.

        Args:
            sessions: of the clients.
            admission: whether they may go on.
            proofs: of who joins; ``None`` where the broker's word is all there is.
            own_name: of the server at the broker, which no client may have.
            due: is told of whom there is something to be published for.
            send_away: is told who may not join, and why.
        """
        self._sessions, self._admission, self._proofs = sessions, admission, proofs
        self._own_name, self._due, self._send_away = own_name, due, send_away
        self._penances: OrderedDict[str, Penance] = OrderedDict()
        self.talks: dict[str, Talk] = {}

    def take(self, name: str, payload: bytes) -> None:
        """A frame that was published in a client's name."""
        if not is_name(name) or name == self._own_name:
            self._sessions.refuse(None, "denied", f"{name[:64]!r} is no client's name")
            return
        if len(payload) > MAX_FRAME:
            self._sessions.refuse(name, "oversize", f"a frame of {len(payload)} bytes")
            return
        try:
            frame = link.FromClient.FromString(payload)
        except DecodeError:
            self._sessions.refuse(name, "garbage", "bytes that are no frame")
            return
        match frame.WhichOneof("body"):
            case "join":
                self._join(name, frame.join, len(payload))
            case "away":
                self._away(name, frame.away)
            case _:
                self._receive(name, payload)

    def _join(self, name: str, join: link.Join, size: int) -> None:
        if size > MAX_JOIN:
            self._sessions.refuse(name, "oversize", f"a first frame of {size} bytes")
            return
        penance = self._penances.get(name)
        if penance is not None and time.monotonic() < penance.until:
            # Looking at its certificate each time would have the broker's queue overflow.
            self._sessions.refuse(name, "too-many-joins", "joining too often")
            return
        try:
            serial = None
            if self._proofs is not None:
                serial = self._proofs.check(name, join, self._sessions.session_id)
            self._admission.admit(name, serial)
            with self._sessions.changed:
                if self._is_replaced(name, join.instance):
                    reason = link.Dismissal.REASON_REPLACED
                    self._put_off(name, link.Dismissal(reason=reason, instance=join.instance))
                    return
                session, stream, welcome = self._sessions.join(
                    name, serial, join, lambda: self._due(name)
                )
                session.connection = join.connection
                session.up += size
                welcome.instance, welcome.attempt = join.instance, join.attempt
                welcome.place, welcome.since = session.place, session.since
                frame = link.FromServer(welcome=welcome).SerializeToString()
                self.talks[name] = Talk(stream, self._sessions.numbered, frame)
        except RefusedFrameError as error:
            # A Join that the broker delivers twice is no reason to send anybody away.
            if error.reason != "overtaken":
                self._put_off(name, error)
            return
        except DeniedError as error:
            self._put_off(name, error)
            return
        text = "client %s joined through the broker (node %d)"
        self._sessions.hush.log(logging.INFO, name, text, name, session.node)
        self._due(name)

    def _put_off(self, name: str, why: DeniedError | RefusedFrameError | link.Dismissal) -> None:
        """Say why somebody may not join; to one who asks without end, only now and then.

        What is published for it waits in the same line as what is due to all others.
        """
        penance = self._penances.setdefault(name, Penance())
        self._penances.move_to_end(name)
        while len(self._penances) > KEPT_PENANCES:
            self._penances.popitem(last=False)
        if penance.words.take():
            self._send_away(name, why)
        else:
            penance.until = time.monotonic() + SECONDS_OF_PENANCE
            self._sessions.refuse(name, "too-many-joins", "joining too often")

    def _is_replaced(self, name: str, instance: int) -> bool:
        """Whether another process has joined since: two of one name would end each other for ever.

        Not every broker tells a client why it is cut off.
        """
        session = self._sessions.get(name)
        if session is None or session.instance in (0, instance):
            return False
        if instance in session.former:
            return True
        session.note_former()
        return False

    def _away(self, name: str, away: link.Away) -> None:
        session = self._sessions.get(name)
        if session is None or session.stream is None:
            return
        if (session.instance, session.connection) == (away.instance, away.connection):
            self._leave(session, session.stream)

    def _leave(self, session: Session, stream: Stream) -> None:
        self._sessions.leave(session, stream)
        self._sessions.hush.log(logging.INFO, session.name, "client %s: away", session.name)

    def _receive(self, name: str, payload: bytes) -> None:
        session = self._sessions.get(name)
        stream = None if session is None else session.stream
        if session is None or stream is None:
            self._sessions.refuse(name, "stray", "a frame of a client that has not joined")
            return
        if not self._admission.may_go_on(session, stream):
            return
        try:
            self._sessions.receive(session, stream, payload)
        except RefusedFrameError as error:
            stream.refused = error
            stream.wake()
