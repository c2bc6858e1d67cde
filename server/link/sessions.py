"""Clients and the messages that they have not answered yet. No sockets and no event loop here.

Delivery is exactly once because messages are numbered for each client, a stream carries them in
order, and a client says on joining which number it has received: what lies above is sent again,
what lies below and is still open is answered again from the client's memory.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable

from google.protobuf.message import DecodeError

from protos import link_v1_pb2 as link
from protos.link import MAX_FRAME
from recast_core.text import plain
from server.link.identity import node_id
from server.link.limits import MAX_CLIENTS
from server.link.notices import Notices
from server.link.session import Answer, Open, RefusedFrameError, Session, Stream

# Between two looks at what has been answered, for each that has not been.
_LOOK_SECONDS_EACH = 2e-6


class Sessions(Notices):
    """All clients. Every method may be called from any thread."""

    def __init__(
        self, session_id: int, settings: str, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Start with no clients.

        Args:
            session_id: names this server process to clients; not 0.
            settings: a JSON object for clients that do not know this ``session_id`` yet.
            clock: seconds, monotonic.
        """
        super().__init__()
        self.session_id = session_id
        self.changed = threading.Condition()
        self.clock = clock
        # Where messages for all are numbered together: the last of these numbers.
        self.numbered = 0
        self._settings = settings
        self._by_node: dict[int, Session] = {}
        self._open: dict[str, tuple[Session, int]] = {}
        self._answers: dict[str, Answer] = {}
        self._connected = 0
        self._over: link.Dismissal.Reason | None = None

    def join(
        self,
        name: str,
        serial: int | None,
        join: link.Join,
        wake: Callable[[], None],
        cut: Callable[[], None] = lambda: None,
    ) -> tuple[Session, Stream, link.Welcome]:
        """Begin a stream; an older one of the same client is dismissed.

        Raises:
            RefusedFrameError: too many joins or clients, or a join overtaken by a later one.
        """
        with self.changed:
            session = self._by_node.get(node_id(name))
            if session is None:
                if len(self._by_node) >= MAX_CLIENTS:
                    raise RefusedFrameError("too-many-clients", "the server is full", retry=True)
                session = Session(
                    name, node_id(name), place=len(self._by_node), since=self.numbered
                )
                self._by_node[session.node] = session
            if not session.joins.take():
                raise RefusedFrameError("too-many-joins", "joining too often", retry=True)
            same = session.instance == join.instance
            if same and join.attempt <= session.attempt:
                raise RefusedFrameError("overtaken", "a later join came first", retry=True)
            old = session.stream
            if old is not None:
                old.dismissal = link.Dismissal.REASON_REPLACED
                old.wake()
            known = join.session == self.session_id
            received = min(join.received, session.last) if known else 0
            self._connected += old is None
            stream = session.stream = Stream(received, wake, cut, self._over)
            session.serial, session.expelled = serial, False
            session.instance, session.attempt = join.instance, join.attempt
            welcome = link.Welcome(
                session=self.session_id,
                settings="" if known else self._settings,
                outstanding=[
                    number
                    for number, entry in sorted(session.open.items())
                    if number <= received and not entry.retired
                ],
            )
            self.changed.notify_all()
            return session, stream, welcome

    def leave(self, session: Session, stream: Stream) -> None:
        """A stream has ended."""
        with self.changed:
            stream.closed = True
            if session.stream is stream:
                session.stream = None
                self._connected -= 1
                session.seen = self.clock()
            self.changed.notify_all()

    def next_due(self, session: Session, stream: Stream) -> bytes | None:
        """The next frame that ``stream`` has yet to carry; it counts as carried from now on."""
        with self.changed:
            if (notice := self.next_notice(session, stream)) is not None:
                return notice
            due = min(
                (n for n, entry in session.open.items() if n > stream.sent and not entry.retired),
                default=None,
            )
            if due is None or session.stream is not stream:
                return None
            stream.sent = due
            session.carried = max(session.carried, due)
            return session.open[due].frame

    def next_notice(self, session: Session, stream: Stream) -> bytes | None:
        """The next line of text that ``stream`` has yet to carry, which it does from now on."""
        with self.changed:
            if session.stream is not stream or not session.notices:
                return None
            self.changed.notify_all()
            return session.notices.pop(0)

    def notify(self, node: int, text: str) -> int:
        """Have a line of text written into a client's stream, now or when it is back; its bytes."""
        frame = link.FromServer(notice=text).SerializeToString()
        with self.changed:
            session = self._by_node.get(node)
            if session is None or session.expelled:
                return 0
            session.notify(frame)
            if session.stream is not None:
                session.stream.wake()
        return len(frame)

    def push(
        self, node: int, key: str, frame_of: Callable[[int], bytes], at: int | None = None
    ) -> None:
        """Put a message into a client's stream, or keep it until the client is back.

        Args:
            node: the client; one that never joined gets nothing, and answers nothing.
            key: names the message here.
            frame_of: makes the frame from the message's number.
            at: that number, above any before it; the next one where it is ``None``.
        """
        with self.changed:
            session = self._by_node.get(node)
            if session is None:
                return
            if session.expelled:
                self._answers[key] = Answer.revoked(session)
                return
            session.last = session.last + 1 if at is None else at
            session.open[session.last] = Open(key, frame_of(session.last))
            self._open[key] = session, session.last
            if session.stream is not None:
                session.stream.wake()

    def retire(self, keys: Iterable[str]) -> list[str]:
        """Another message takes the place of these.

        One that was on its way may still be answered, late; one that has been retired before, or
        that its client never was sent, is not.

        Returns:
            The messages that can no longer be answered.
        """
        with self.changed:
            gone = []
            for key in keys:
                session, number = self._open.get(key, (None, 0))
                entry = session.open[number] if session else None
                if session and entry and number <= session.carried and not entry.retired:
                    entry.retired = True
                else:
                    gone.append(key)
            return gone

    def expel(self, session: Session) -> None:
        """A client's certificate has been revoked: nothing that it owes is waited for any more."""
        with self.changed:
            session.expelled = True
            for entry in session.open.values():
                del self._open[entry.key]
                self._answers[entry.key] = Answer.revoked(session)
            session.open.clear()
            self.changed.notify_all()

    def withdraw(self, keys: Iterable[str]) -> list[str]:
        """Stop waiting for these messages; returns the names of clients that had not answered."""
        with self.changed:
            found = [self._open.pop(key) for key in keys if key in self._open]
            for session, number in found:
                del session.open[number]
            return [session.name for session, _ in found]

    def receive(self, session: Session, stream: Stream, raw: bytes) -> None:
        """Take one frame of a client. A second answer to a message changes nothing.

        Raises:
            RefusedFrameError: the frame is too large, is none, or answers nothing once too often.
        """
        if len(raw) > MAX_FRAME:
            raise RefusedFrameError("oversize", f"a frame of {len(raw)} bytes")
        try:
            frame = link.FromClient.FromString(raw)
        except DecodeError as error:
            raise RefusedFrameError("garbage", "bytes that are no frame") from error
        which = frame.WhichOneof("body")
        with self.changed:
            if session.stream is not stream:
                return
            session.up += len(raw)
            session.heard = time.monotonic()
            entry = session.open.pop(frame.number, None) if which in ("reply", "error") else None
            if entry is None or frame.number > stream.sent:
                if entry is not None:
                    session.open[frame.number] = entry
                self.refuse(session.name, "stray", "a frame that answers no open message")
                if not session.strays.take():
                    raise RefusedFrameError(
                        "too-many-frames", "frames that answer nothing", retry=True
                    )
                return
            del self._open[entry.key]
            body = frame.reply if which == "reply" else None
            self._answers[entry.key] = Answer(session.node, body, plain(frame.error))
            self.changed.notify_all()

    def take(self, keys: Iterable[str]) -> dict[str, Answer]:
        """The answers to these messages that are there, each once."""
        with self.changed:
            return {key: self._answers.pop(key) for key in keys if key in self._answers}

    def wait(self, keys: Iterable[str], seconds: float, grace: float) -> None:
        """Return when each message is answered, or its client is away for ``grace``, or in time."""
        keys = list(keys)
        end = self.clock() + seconds
        while True:
            with self.changed:
                now = self.clock()
                keys = [key for key in keys if key in self._open]
                holding = [self._open[key][0] for key in keys]
                until = [end if s.stream else min(end, s.seen + grace) for s in holding]
                if max(until, default=now) <= now:
                    return
                self.changed.wait(min(t for t in until if t > now) - now)
            # Each of thousands of answers would have all the others looked at again.
            time.sleep(_LOOK_SECONDS_EACH * len(keys))

    def wait_for_clients(self, count: int) -> None:
        """Return when ``count`` clients are connected."""
        with self.changed:
            self.changed.wait_for(lambda: self._connected >= count)

    def all(self) -> list[Session]:
        """Every client that ever joined."""
        with self.changed:
            return list(self._by_node.values())

    def get(self, name: str) -> Session | None:
        """The client of that name, if it ever joined."""
        with self.changed:
            return self._by_node.get(node_id(name))

    def near(self, grace: float) -> list[int]:
        """The nodes that are connected, or were less than ``grace`` seconds ago."""
        now = self.clock()
        return [
            s.node
            for s in self.all()
            if not s.expelled and (s.stream is not None or now - s.seen < grace)
        ]

    def dismiss(self, reason: link.Dismissal.Reason) -> None:
        """End every stream, also those that are yet to come."""
        with self.changed:
            self._over = reason
            for session in self._by_node.values():
                if session.stream is not None:
                    session.stream.dismissal = reason
                    session.stream.wake()

    def let_go(self) -> None:
        """End every stream when what waits for its client to read has been written."""
        with self.changed:
            for session in self._by_node.values():
                if session.stream is not None:
                    session.stream.over = True
                    session.stream.wake()

    def wait_until_told(self, count: int, seconds: float) -> None:
        """Return when ``count`` clients have come and gone, or after ``seconds``."""
        with self.changed:
            self.changed.wait_for(
                lambda: sum(one.stream is None for one in self._by_node.values()) >= count, seconds
            )

    def wait_until_noticed(self, seconds: float) -> None:
        """Return when no client that is connected has a notice to come, or after ``seconds``."""
        with self.changed:
            self.changed.wait_for(
                lambda: not any(one.stream and one.notices for one in self._by_node.values()),
                seconds,
            )

    def wait_until_empty(self, seconds: float) -> None:
        """Return when no client is connected, or after ``seconds``."""
        with self.changed:
            self.changed.wait_for(lambda: not self._connected, seconds)
