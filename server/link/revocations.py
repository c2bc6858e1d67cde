"""The list of revoked certificates: read again whenever it changes, and trusted only as a whole."""

from __future__ import annotations

import logging
import re
import threading
import time
from collections.abc import Iterable
from pathlib import Path

from recast_core.errors import RecastError
from recast_core.files import read_text

logger = logging.getLogger("recast.link")
# A file that is written again so soon may look unchanged: file systems count time in ticks.
_SETTLED_NS = 2_000_000_000
_SERIAL = re.compile(r"[0-9A-Fa-f]+(:[0-9A-Fa-f]+)*")


class UnreadableListError(ValueError):
    """Nobody can be told apart from a revoked client; the text is for a peer."""


def check_list(path: Path) -> None:
    """See that the list is there and can be read, before anybody is waited for.

    Raises:
        RecastError: nobody could be let in.
    """
    try:
        parse_revocations(read_text(path).splitlines())
    except FileNotFoundError as error:
        raise RecastError(
            f"no {path}, the list of revoked certificates: copy it from where they are revoked; "
            "where none ever was, make an empty file"
        ) from error
    except (OSError, ValueError) as error:
        raise RecastError(f"{path}: {error}; mend it, or nobody can be let in") from error


class Revocations:
    """The serial numbers in a file, one hexadecimal number at the start of each line.

    Where the file is missing or cannot be read, nobody may speak until it can be read again. Every
    method may be called from any thread.
    """

    def __init__(self, path: Path | None) -> None:
        """Read ``path`` when somebody is looked up; ``None`` where nobody has a certificate."""
        self._path = path
        self._lock = threading.Lock()
        self._stamp: tuple[int, int, int] | None = None
        self._serials: frozenset[int] = frozenset()
        self._fault = ""

    def revoked(self, serial: int | None, *, look: bool = True) -> bool:
        """Whether a certificate is on the list as it is now.

        Args:
            serial: the certificate's.
            look: whether the file may have changed since the last time.

        Raises:
            UnreadableListError: the list cannot be read; the log says why, once.
        """
        if self._path is None:
            return False
        with self._lock:
            fault = self._refresh(self._path) if look else self._fault
            if fault != self._fault:
                self._fault = fault
                if fault:
                    logger.error("nobody may join or answer until this is mended: %s", fault)
                else:
                    logger.warning("%s can be read again", self._path)
            if fault:
                raise UnreadableListError("the server cannot read its list of revoked certificates")
            return serial in self._serials

    def _refresh(self, path: Path) -> str:
        """Read the file if it has changed; what is wrong with it, or nothing."""
        try:
            status = path.stat()
            stamp = status.st_mtime_ns, status.st_size, status.st_ino
            if stamp != self._stamp:
                self._serials = parse_revocations(read_text(path).splitlines())
                settled = time.time_ns() - status.st_mtime_ns > _SETTLED_NS
                self._stamp = stamp if settled else None
        except OSError as error:
            self._stamp = None
            return f"{path}: {error.strerror or error}; an empty file revokes nobody"
        except ValueError as error:
            self._stamp = None
            return f"{path}: {error}"
        return ""


def parse_revocations(lines: Iterable[str]) -> frozenset[int]:
    """The serial numbers of a revocation list; empty lines and those after ``#`` say nothing.

    Raises:
        ValueError: a line that does not start with a hexadecimal number.
    """
    serials = set()
    for number, line in enumerate(lines, start=1):
        words = line.partition("#")[0].split()
        if not words:
            continue
        if not _SERIAL.fullmatch(words[0]):
            word = words[0][:40]
            raise ValueError(f"line {number} starts with {word!r}, which is no hexadecimal number")
        serials.add(int(words[0].replace(":", ""), 16))
    return frozenset(serials)
