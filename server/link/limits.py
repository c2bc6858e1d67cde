"""How much one client may ask of the server before it is put off."""

from __future__ import annotations

from pathlib import Path

from protos.link import CHUNK
from server.exchange.hush import Bucket

# Where the system tells a process its own sockets.
FILES = Path("/proc/self/fd")
MAX_CLIENTS = 10_000
FETCHES_AT_ONCE = 2
# Lines of text that wait for a client that is away; the latest.
NOTICES_AT_MOST = 8
# Streams of one client: its own, the one that takes its place, and some that have yet to end.
TALKS_AT_ONCE = 4
# Streams of one address that have yet to say their first word, and connections without a stream.
JOINING_AT_ONCE = 128
WAITING_PER_ADDRESS = 128
WAITING_AT_MOST = 1024
# From the connection to the first word, TLS included.
SECONDS_TO_JOIN = 10.0
# That one which joins too often waits to be told so. One which calls too often is told after as
# long only where the system does not show a process its own sockets: on Linux its connection is
# frozen before that, nothing more is read from it, and it is reset after ``SECONDS_TO_JOIN``.
SECONDS_OF_PENANCE = 2.0
# How often the list of revoked certificates is looked at where nobody speaks, and how long whoever
# is on it has for leaving by itself.
SECONDS_TO_LOOK = 0.25
SECONDS_TO_LEAVE = 0.4


def joins() -> Bucket:
    """A link that flaps joins every few seconds for a while; nothing useful joins faster."""
    return Bucket(rate=0.5, burst=20)


def calls() -> Bucket:
    """Streams and fetches of one client, also those that it takes back as soon as they are open."""
    return Bucket(rate=1, burst=48)


def strays() -> Bucket:
    """Frames that answer no open message: late answers are rare, anything more is noise."""
    return Bucket(rate=0.1, burst=16)


def downloads(size: int) -> Bucket:
    """Bytes of one body: a download that is cut goes on where it was, so that few come twice."""
    return Bucket(rate=size / 120, burst=4 * size + 64 * CHUNK)
