"""One client of the link as the server knows it, and what it may still answer."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from protos import link_v1_pb2 as link
from server.exchange.hush import Bucket
from server.exchange.observer import LOST
from server.link.identity import DeniedError
from server.link.limits import NOTICES_AT_MOST, joins, strays

REVOKED = next(code for code, reason in LOST.items() if reason == "revoked")


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


@dataclass(eq=False, slots=True)
class Stream:
    """One stream of a client, as its writer sees it.

    Attributes:
        sent: the highest number that need not be written.
        wake: tells the writer to look again; callable from any thread.
        cut: ends it whatever its writer waits for; on the loop.
        dismissal: why the stream is to end, once that is so.
        over: the server leaves: the stream is to end, and its client will look for another.
        refused: why its client may not go on, once that is so.
        closed: the stream has ended; nothing more is to be written.
    """

    sent: int
    wake: Callable[[], None]
    cut: Callable[[], None] = lambda: None
    dismissal: link.Dismissal.Reason | None = None
    over: bool = False
    refused: DeniedError | RefusedFrameError | None = None
    closed: bool = False


@dataclass(eq=False, slots=True)
class Open:
    """A message that waits for its answer.

    Attributes:
        key: names the message to the grid.
        frame: carries it.
        retired: a later one has taken its place; an answer that is on its way is still taken.
    """

    key: str
    frame: bytes
    retired: bool = False


@dataclass(eq=False, slots=True)
class Session:
    """What the server knows of one client, across its streams.

    Attributes:
        serial: of the certificate that it joined with last.
        expelled: that certificate has been revoked since.
        carried: the highest number that any of its streams has carried.
        seen: monotonic seconds when its last stream ended.
        heard: monotonic seconds when its last frame came.
        notices: frames that wait to be written, and that nothing is answered to; the latest.
        fetching: downloads at once.
        fetched: what it may still fetch of each body, by SHA-256.
        place: counts the clients, in the order in which they came.
        since: the highest number of a message for all when it came.
        connection: of its process, to a broker.
        former: its processes that another has replaced; the latest.
        up: bytes of its frames.
        down: bytes of the frames written to it, and of what it fetched.
    """

    name: str
    node: int
    serial: int | None = None
    expelled: bool = False
    stream: Stream | None = None
    open: dict[int, Open] = field(default_factory=dict)
    last: int = 0
    carried: int = 0
    instance: int = 0
    attempt: int = 0
    seen: float = field(default_factory=time.monotonic)
    heard: float = field(default_factory=time.monotonic)
    notices: list[bytes] = field(default_factory=list)
    joins: Bucket = field(default_factory=joins)
    strays: Bucket = field(default_factory=strays)
    fetching: int = 0
    fetched: dict[bytes, Bucket] = field(default_factory=dict)
    place: int = 0
    since: int = 0
    connection: int = 0
    former: tuple[int, ...] = ()
    up: int = 0
    down: int = 0

    def notify(self, frame: bytes) -> None:
        """Have a frame wait that nothing is answered to; the oldest of too many is dropped."""
        self.notices.append(frame)
        del self.notices[:-NOTICES_AT_MOST]

    def note_former(self) -> None:
        """Know its process as one that another is about to replace."""
        self.former = (*self.former, self.instance)[-NOTICES_AT_MOST:]


@dataclass(frozen=True)
class Refused:
    """What the link refused: of which client, where that is known, why (a short code), details."""

    client: str | None
    reason: str
    detail: str


@dataclass(frozen=True)
class Answer:
    """A client's answer: the body, or what went wrong, and the code of an error reply for that."""

    node: int
    body: bytes | None
    error: str = ""
    code: int = 1

    @classmethod
    def revoked(cls, session: Session) -> Answer:
        """What is answered for a client that is no longer heard."""
        return cls(session.node, None, f"the certificate of {session.name} is revoked", REVOKED)
