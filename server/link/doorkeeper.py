"""Connections that say nothing: cut before they take what clients need.

gRPC accepts a connection before anybody knows whose it is, and tells nobody of it until its TLS
greeting and its first call are over. So this looks at the sockets of the process itself. It acts on
duplicates of their descriptors, which name the same socket for sure, also where gRPC has closed its
own meanwhile and another file has taken the number.
"""

from __future__ import annotations

import asyncio
import ctypes
import logging
import os
import resource
import socket
import struct
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import dataclass

from server.link.limits import FILES, SECONDS_TO_JOIN, WAITING_PER_ADDRESS
from server.link.turnstile import Peer

logger = logging.getLogger("recast.link")
MOST_FILES = 1 << 20
# For the registry, the bank and what Python opens for itself.
RESERVED_FILES = 128
CALM, HURRY = 0.25, 0.05
# A filter of one instruction, which keeps 0 bytes of what comes in.
_SO_ATTACH_FILTER = 26
_INSTRUCTION = ctypes.create_string_buffer(struct.pack("HBBI", 6, 0, 0, 0))
_DROP_ALL = struct.pack("HP", 1, ctypes.addressof(_INSTRUCTION))
# To linger for no time: what is not sent by then is not sent, and the other end is told.
_AT_ONCE = struct.pack("ii", 1, 0)
_TRIM = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None


def raise_file_limit() -> int:
    """Let this process open as many files as it may; returns how many."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = MOST_FILES if hard == resource.RLIM_INFINITY else min(hard, MOST_FILES)
    if soft != resource.RLIM_INFINITY and soft < most:
        with suppress(ValueError, OSError):  # macOS has a lower limit of its own
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
            soft = most
    return MOST_FILES if soft == resource.RLIM_INFINITY else soft


def give_back_memory() -> None:
    """Have the C library return what it holds in reserve, where it can."""
    if _TRIM is not None:
        _TRIM(0)


@dataclass
class _Seen:
    peer: Peer | None
    since: float
    frozen: bool = False


class Doorkeeper:
    """Cuts connections that have not joined in time, and the oldest where an address has many.

    One over which too much was asked is frozen first: whoever is cut at once comes again at once.
    """

    def __init__(
        self,
        port: int,
        joined: Callable[[], Collection[Peer]],
        most: int = WAITING_PER_ADDRESS,
        doomed: set[Peer] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Watch the connections that came in at ``port``.

        Args:
            port: that is listened at.
            joined: the peers of streams whose clients have joined.
            most: connections of one address that may wait to join.
            doomed: peers that are not listened to any more; others add to it.
            clock: seconds, monotonic.
        """
        self._port, self._joined, self._most, self._clock = port, joined, most, clock
        self._doomed = set[Peer]() if doomed is None else doomed
        self._seen: dict[str, _Seen] = {}
        self.cut = 0

    async def watch(self) -> None:
        """Look for as long as the server listens; not at all where the system does not tell."""
        untidy = False
        while FILES.is_dir():
            began, worked = time.monotonic(), time.thread_time()
            cut = self.look()
            if untidy and not cut:
                give_back_memory()
            untidy = cut > 0
            pause = HURRY if cut else CALM
            # Looking takes a twentieth of the time at most, however many clients there are: of the
            # processor's time, for what others take of it is no reason to look less often.
            await asyncio.sleep(max(HURRY, 20 * (time.thread_time() - worked)))
            while not self._doomed and time.monotonic() < began + pause:
                await asyncio.sleep(HURRY)

    def look(self) -> int:
        """Cut what is to be cut; returns how much that was."""
        now, present = self._clock(), self._sockets()
        self._seen = {
            inode: self._seen.get(inode) or _Seen(self._peer(number, inode), now)
            for inode, number in present.items()
        }
        joined, doomed = self._joined(), frozenset(self._doomed)
        self._doomed.clear()
        waiting: dict[str, list[tuple[float, str]]] = defaultdict(list)
        for inode, seen in self._seen.items():
            if seen.peer in doomed and not seen.frozen:
                seen.frozen, seen.since = True, now
                self._freeze(present[inode], inode)
            if seen.peer is not None and (seen.frozen or seen.peer not in joined):
                waiting[seen.peer.host].append((seen.since, inode))
        cut = 0
        for entries in waiting.values():
            entries.sort()
            surplus = len(entries) - self._most
            for place, (since, inode) in enumerate(entries):
                if place < surplus or now - since > SECONDS_TO_JOIN:
                    cut += self._shut(present[inode], inode, reset=self._seen[inode].frozen)
        self.cut += cut
        return cut

    def _sockets(self) -> dict[str, int]:
        """The sockets of this process: ``socket:[INODE]`` to a descriptor."""
        found = {}
        for path in FILES.iterdir():
            with suppress(OSError):
                target = str(path.readlink())
                if target.startswith("socket:"):
                    found[target] = int(path.name)
        return found

    def _peer(self, number: int, inode: str) -> Peer | None:
        """Who is at the other end of a connection that came in; ``None`` for other sockets."""
        own = _duplicate(number, inode)
        if own is None:
            return None
        with own:
            try:
                if own.family not in (socket.AF_INET, socket.AF_INET6):
                    return None
                if own.getsockname()[1] != self._port:
                    return None
                host, port = own.getpeername()[:2]
            except OSError:
                return None
        return Peer.of(host, port)

    def _freeze(self, number: int, inode: str) -> None:
        """Have the system drop what comes in, before anybody reads it; else cut the connection."""
        own = _duplicate(number, inode)
        if own is None:
            return
        with own:
            try:
                own.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, _DROP_ALL)
            except OSError:
                with suppress(OSError):
                    own.shutdown(socket.SHUT_RDWR)

    def _shut(self, number: int, inode: str, *, reset: bool) -> int:
        """Cut a connection; a frozen one drops acknowledgements, so that only a reset gets out."""
        own = _duplicate(number, inode)
        if own is None:
            return 0
        with own, suppress(OSError):
            if reset:
                own.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _AT_ONCE)
            own.shutdown(socket.SHUT_RDWR)
        return 1


def _duplicate(number: int, inode: str) -> socket.socket | None:
    """The socket again, if the descriptor still names it."""
    try:
        copy = os.dup(number)
    except OSError:
        return None
    try:
        if str((FILES / str(copy)).readlink()) == inode:
            return socket.socket(fileno=copy)
    except OSError:
        pass
    os.close(copy)
    return None
