"""Clients and the messages that they have not answered yet. No sockets and no event loop here.

Delivery is exactly once because messages are numbered for each client, a stream carries them in
order, and a client says on joining which number it has received: what lies above is sent again,
what lies below and is still open is answered again from the client's memory.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from google.protobuf.message import DecodeError

from protos import link_v1_pb2 as link
from protos.link import MAX_FRAME
from server.link.identity import node_id
from server.link.limits import MAX_CLIENTS, Bucket, joins, strays


class RefusedFrameError(ValueError):
    """A frame, or a join, that ends its stream.

    Attributes:
        reason: a stable short code, counted.
        retry: whether the client may come again later.
    """

    def __init__(self, reason: str, detail: str, *, retry: bool = False) -> None:
        super().__init__(detail)
        self.reason = reason
        self.retry = retry


@dataclass(eq=False)
class Stream:
    """One stream of a client, as its writer sees it.

    Attributes:
        sent: the highest number that need not be written.
        wake: tells the writer to look again; callable from any thread.
        dismissal: why the stream is to end, once that is so.
        closed: the stream has ended; nothing more is to be written.
    """

    sent: int
    wake: Callable[[], None]
    dismissal: link.Dismissal.Reason | None = None
    closed: bool = False


@dataclass(eq=False)
class Open:
    """A message that waits for its answer."""

    key: str
    frame: bytes


@dataclass(eq=False)
class Session:
    """What the server knows of one client, across its streams.

    Attributes:
        seen: monotonic seconds when its last stream ended.
        up: bytes of its frames.
        down: bytes of the frames written to it, and of what it fetched.
    """

    name: str
    node: int
    serial: int | None = None
    stream: Stream | None = None
    open: dict[int, Open] = field(default_factory=dict)
    last: int = 0
    instance: int = 0
    attempt: int = 0
    seen: float = field(default_factory=time.monotonic)
    joins: Bucket = field(default_factory=joins)
    strays: Bucket = field(default_factory=strays)
    fetching: int = 0
    up: int = 0
    down: int = 0


@dataclass(frozen=True)
class Answer:
    """A client's answer: the body, or what went wrong there."""

    node: int
    body: bytes | None
    error: str = ""


class Sessions:
    """All clients. Every method may be called from any thread."""

    def __init__(self, session_id: int, settings: str) -> None:
        """Start with no clients.

        Args:
            session_id: names this server process to clients; not 0.
            settings: a JSON object for clients that do not know this ``session_id`` yet.
        """
        self.session_id = session_id
        self.changed = threading.Condition()
        self.refused: Counter[str] = Counter()
        self._settings = settings
        self._by_node: dict[int, Session] = {}
        self._open: dict[str, tuple[Session, int]] = {}
        self._answers: dict[str, Answer] = {}

    def join(
        self, name: str, serial: int | None, join: link.Join, wake: Callable[[], None]
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
                session = self._by_node[node_id(name)] = Session(name, node_id(name))
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
            stream = session.stream = Stream(received, wake)
            session.serial = serial
            session.instance, session.attempt = join.instance, join.attempt
            welcome = link.Welcome(
                session=self.session_id,
                settings="" if known else self._settings,
                outstanding=[number for number in sorted(session.open) if number <= received],
            )
            self.changed.notify_all()
            return session, stream, welcome

    def leave(self, session: Session, stream: Stream) -> None:
        """A stream has ended."""
        with self.changed:
            stream.closed = True
            if session.stream is stream:
                session.stream = None
                session.seen = time.monotonic()
            self.changed.notify_all()

    def next_due(self, session: Session, stream: Stream) -> bytes | None:
        """The next frame that ``stream`` has yet to carry; it counts as carried from now on."""
        with self.changed:
            due = min((number for number in session.open if number > stream.sent), default=None)
            if due is None or session.stream is not stream:
                return None
            stream.sent = due
            return session.open[due].frame

    def push(self, node: int, key: str, frame_of: Callable[[int], bytes]) -> None:
        """Put a message into a client's stream, or keep it until the client is back.

        Args:
            node: the client; one that never joined gets nothing, and answers nothing.
            key: names the message here.
            frame_of: makes the frame from the message's number.
        """
        with self.changed:
            session = self._by_node.get(node)
            if session is None:
                return
            session.last += 1
            session.open[session.last] = Open(key, frame_of(session.last))
            self._open[key] = session, session.last
            if session.stream is not None:
                session.stream.wake()

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
            entry = session.open.pop(frame.number, None) if which in ("reply", "error") else None
            if entry is None or frame.number > stream.sent:
                if entry is not None:
                    session.open[frame.number] = entry
                self.refused["stray"] += 1
                if not session.strays.take():
                    raise RefusedFrameError(
                        "too-many-frames", "frames that answer nothing", retry=True
                    )
                return
            del self._open[entry.key]
            body = frame.reply if which == "reply" else None
            self._answers[entry.key] = Answer(session.node, body, frame.error[:200])
            self.changed.notify_all()

    def take(self, keys: Iterable[str]) -> dict[str, Answer]:
        """The answers to these messages that are there, each once."""
        with self.changed:
            return {key: self._answers.pop(key) for key in keys if key in self._answers}

    def unanswered(self, keys: Iterable[str]) -> list[str]:
        """Those of these messages that are still open."""
        with self.changed:
            return [key for key in keys if key in self._open]

    def wait(self, keys: Iterable[str], seconds: float, grace: float) -> None:
        """Return when each message is answered, or its client is away for ``grace``, or in time."""
        keys = list(keys)
        end = time.monotonic() + seconds
        with self.changed:
            while True:
                now = time.monotonic()
                holding = [self._open[key][0] for key in keys if key in self._open]
                until = [end if s.stream else min(end, s.seen + grace) for s in holding]
                if max(until, default=now) <= now:
                    return
                self.changed.wait(min(t for t in until if t > now) - now)

    def wait_for_clients(self, count: int) -> None:
        """Return when ``count`` clients are connected."""
        with self.changed:
            self.changed.wait_for(lambda: sum(s.stream is not None for s in self.all()) >= count)

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
        now = time.monotonic()
        return [s.node for s in self.all() if s.stream is not None or now - s.seen < grace]

    def dismiss(self, reason: link.Dismissal.Reason) -> None:
        """End every stream."""
        with self.changed:
            for session in self._by_node.values():
                if session.stream is not None:
                    session.stream.dismissal = reason
                    session.stream.wake()

    def wait_until_empty(self, seconds: float) -> None:
        """Return when no client is connected, or after ``seconds``."""
        with self.changed:
            self.changed.wait_for(
                lambda: all(session.stream is None for session in self._by_node.values()), seconds
            )
