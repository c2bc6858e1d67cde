"""A file behind an HTTP(S) URL, from any byte on: what both ends need of the web."""

from __future__ import annotations

import ssl
import urllib.error
import urllib.request
from collections.abc import Iterator
from urllib.parse import urlsplit

SECONDS = 30.0
PIECE = 1 << 16
# Too early, too late, too often, and a server's own trouble: all of it passes.
_PASSING = {408, 425, 429}


class WebError(Exception):
    """A file that cannot be had; the text is cause and remedy, without what a URL keeps secret.

    Attributes:
        permanent: trying again does not help.
    """

    def __init__(self, text: str, *, permanent: bool = False) -> None:
        super().__init__(text)
        self.permanent = permanent


def checked_url(text: str) -> str:
    """``text`` if it is a URL that clients can fetch from.

    Raises:
        ValueError: it is none; the text says what to write.
    """
    parts = urlsplit(text)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(
            f"{shown(text)!r} is no address of a file: give http:// or https:// HOST/PATH; for a "
            "bucket of S3 its https address, signed if it is private"
        )
    return text


def shown(url: str) -> str:
    """A URL as it may be logged: without names, passwords and signatures."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.hostname or ''}{parts.path}" if parts.scheme else url[:80]


def pieces(url: str, offset: int, room: int) -> Iterator[bytes]:
    """The bytes of a file from ``offset`` on, ``room`` at most.

    Raises:
        WebError: it cannot be had, or not now; what came before is good.
        ValueError: no HTTP(S) URL.
    """
    request = urllib.request.Request(
        checked_url(url), headers={"Range": f"bytes={offset}-", "Accept-Encoding": "identity"}
    )
    try:
        with urllib.request.urlopen(request, timeout=SECONDS) as answer:
            # A server that knows no ranges begins at the beginning.
            skip = 0 if answer.status == 206 else offset
            missing = int(answer.headers.get("Content-Length") or 0)
            while room > 0 and (piece := answer.read(PIECE)):
                missing -= len(piece)
                piece, skip = piece[skip:], max(0, skip - len(piece))
                if piece := piece[:room]:
                    room -= len(piece)
                    yield piece
            if room > 0 and missing > 0:
                raise WebError(f"{shown(url)} broke off: it goes on later")
    except urllib.error.HTTPError as error:
        if error.code == 416:  # the file ends before; whoever asked sees that bytes are missing
            return
        permanent = 400 <= error.code < 500 and error.code not in _PASSING
        raise WebError(
            f"{shown(url)} answers {error.code} {error.reason}: check the address, and that it is "
            "still valid",
            permanent=permanent,
        ) from error
    except (urllib.error.URLError, OSError, EOFError) as error:
        reason = getattr(error, "reason", error)
        permanent = isinstance(reason, ssl.SSLCertVerificationError)
        raise WebError(
            f"{shown(url)} cannot be read ({reason}): check the address and the network",
            permanent=permanent,
        ) from error
