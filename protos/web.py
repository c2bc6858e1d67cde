"""A file behind an HTTP(S) URL, from any byte on: what both ends need of the web."""

from __future__ import annotations

import http.client
import os
import socket
import ssl
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from urllib.parse import urlsplit

# That nothing at all may come; and, with the time for so many bytes a second, that a file may take.
SECONDS = 30.0
SLOWEST = 4096.0
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
    try:
        parts = urlsplit(text)
        good = parts.scheme in ("http", "https") and bool(parts.hostname)
    except ValueError:
        good = False
    if not good:
        raise ValueError(
            f"{shown(text)!r} is no address of a file: give http:// or https:// HOST/PATH; for a "
            "bucket of S3 its https address, signed if it is private"
        )
    return text


def shown(url: str) -> str:
    """A URL as it may be logged: without names, passwords and signatures."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return "what is given"
    return f"{parts.scheme}://{parts.hostname or ''}{parts.path}" if parts.scheme else url[:80]


class _Watch:
    """Ends a connection when its time is over, however little comes of it, and how often."""

    def __init__(self, seconds: float) -> None:
        self.seconds, self.is_over = seconds, False
        self._socket: socket.socket | None = None
        self._timer = threading.Timer(seconds, self._end)
        self._timer.daemon = True
        self._timer.start()

    def opener(self) -> urllib.request.OpenerDirector:
        """What opens URLs by connections that are watched."""
        watch = self

        class Plain(http.client.HTTPConnection):
            def connect(self) -> None:
                super().connect()
                watch.look_at(self.sock)

        class Secure(http.client.HTTPSConnection):
            def connect(self) -> None:
                super().connect()
                watch.look_at(self.sock)

        class Http(urllib.request.HTTPHandler):
            def http_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
                return self.do_open(Plain, req)

        class Https(urllib.request.HTTPSHandler):
            def https_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
                return self.do_open(Secure, req)

        return urllib.request.build_opener(Http, Https)

    def look_at(self, connection: socket.socket) -> None:
        """End this one when the time is over."""
        self._socket = connection
        if self.is_over:
            self._end()

    def close(self) -> None:
        """Whatever happens now may take its time."""
        self._timer.cancel()

    def _end(self) -> None:
        self.is_over = True
        if self._socket is not None:
            with suppress(OSError, ValueError), self._beneath(self._socket) as same:
                same.shutdown(socket.SHUT_RDWR)

    @staticmethod
    def _beneath(connection: socket.socket) -> socket.socket:
        """The same without TLS, which another thread is in the middle of.

        Raises:
            OSError: it has ended by itself.
        """
        return socket.socket(fileno=os.dup(connection.fileno()))


def pieces(url: str, offset: int, room: int) -> Iterator[bytes]:
    """The bytes of a file from ``offset`` on, ``room`` at most.

    Raises:
        WebError: it cannot be had, or not now, or comes too slowly; what came before is good.
        ValueError: no HTTP(S) URL.
    """
    watch, come = _Watch(SECONDS + room / SLOWEST), 0
    try:
        for piece in _pieces(watch, checked_url(url), offset, room):
            come += len(piece)
            yield piece
    except WebError as error:
        if watch.is_over:
            raise _too_slow(url, come, watch) from error
        raise
    finally:
        watch.close()
    if watch.is_over and come < room:
        raise _too_slow(url, come, watch)


def _too_slow(url: str, come: int, watch: _Watch) -> WebError:
    return WebError(
        f"{shown(url)} is too slow, {come:,} bytes in {watch.seconds:.0f} s: check the network, or "
        "put the file elsewhere"
    )


def _pieces(watch: _Watch, url: str, offset: int, room: int) -> Iterator[bytes]:
    headers = {"Range": f"bytes={offset}-", "Accept-Encoding": "identity"}
    try:
        request = urllib.request.Request(url, headers=headers)
        with watch.opener().open(request, timeout=SECONDS) as answer:
            # A server that knows no ranges begins at the beginning.
            skip = 0 if answer.status == 206 else offset
            length = answer.headers.get("Content-Length") or ""
            missing = int(length) if length.isdecimal() else 0
            while room > 0 and (piece := answer.read1(PIECE)):
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
        # A redirection that is left over goes in circles, or to what is not the web.
        permanent = 300 <= error.code < 500 and error.code not in _PASSING
        raise WebError(
            f"{shown(url)} answers {error.code} {error.reason}: check the address, and that it is "
            "still valid",
            permanent=permanent,
        ) from error
    except (ValueError, http.client.InvalidURL) as error:
        # Its own text may show what a URL keeps secret.
        raise WebError(
            f"{shown(url)} is no address that can be asked, or leads to none: write spaces and "
            "letters with accents as %20 and the like, and check host and port",
            permanent=True,
        ) from error
    except http.client.HTTPException as error:
        raise WebError(
            f"{shown(url)} does not speak HTTP, or broke off ({type(error).__name__}): check the "
            "address and the network"
        ) from error
    except (urllib.error.URLError, OSError, EOFError) as error:
        reason = getattr(error, "reason", error)
        permanent = isinstance(reason, ssl.SSLCertVerificationError)
        raise WebError(
            f"{shown(url)} cannot be read ({reason}): check the address and the network",
            permanent=permanent,
        ) from error
