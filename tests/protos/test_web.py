"""A file from the web, from servers that are none, lie or break off."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest

from protos.web import SECONDS, SLOWEST, WebError, checked_url, pieces, shown

Answering = Callable[[bytes], str]


@pytest.fixture
def answering() -> Iterator[Answering]:
    """The URL of something that answers anything with the same bytes."""
    listening: list[socket.socket] = []

    def make(raw: bytes) -> str:
        listener = socket.create_server(("127.0.0.1", 0))
        listening.append(listener)

        def answer() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(1 << 16)
                connection.sendall(raw)

        threading.Thread(target=answer, daemon=True).start()
        return f"http://127.0.0.1:{listener.getsockname()[1]}/bank?signature=secret"

    yield make
    for one in listening:
        one.close()


@pytest.mark.parametrize(
    ("raw", "permanent"),
    [
        (b" \x02\x00\x00no HTTP\r\n", False),
        (b"HTTP/1.1 200 OK\r\nX: " + bytes(70_000) + b"\r\n\r\n", False),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n50\r\nbroken off", False),
        (b"HTTP/1.1 302 Found\r\nLocation: file:///etc/passwd\r\n\r\n", True),
        (b"HTTP/1.1 302 Found\r\nLocation: http://host:port/\r\n\r\n", True),
        (b"HTTP/1.1 302 Found\r\nLocation: http://[/\r\n\r\n", True),
    ],
)
def test_what_is_no_file_of_the_web_is_one_line(
    raw: bytes, permanent: bool, answering: Answering
) -> None:
    with pytest.raises(WebError) as raised:
        list(pieces(answering(raw), 0, 100))
    assert raised.value.permanent == permanent
    assert "\n" not in str(raised.value)
    assert "secret" not in str(raised.value)


class Watch:
    """A timer that comes to its end when the test says so."""

    def __init__(self, seconds: float, end: Callable[[], None]) -> None:
        self.seconds, self.end = seconds, end
        Watch.made = self

    def start(self) -> None:
        self.daemon = True

    def cancel(self) -> None:
        self.end = lambda: None

    made: Watch


@pytest.mark.parametrize(
    "head", [b"", b"HTTP/1.1 200 OK\r\nX: ", b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n"]
)
def test_a_file_that_comes_drop_by_drop_has_an_end_and_what_came_is_kept(
    head: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("protos.web.threading.Timer", Watch)
    come, begun = [], threading.Event()
    if not (answers := head.endswith(b"\r\n\r\n")):
        begun.set()  # no byte of the file will come
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def drip() -> None:
            connection, _ = listener.accept()
            with connection, suppress(OSError):
                connection.sendall(head + b"x")
                begun.wait()
                Watch.made.end()
                while True:  # until the other side has closed
                    connection.sendall(b"x")
                    time.sleep(0.01)

        threading.Thread(target=drip, daemon=True).start()
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/bank?signature=secret"
        with pytest.raises(WebError, match=r"is too slow, \d+ bytes in 30 s") as raised:  # noqa: PT012
            for piece in pieces(url, 0, 100):
                come.append(piece)
                begun.set()
    assert Watch.made.seconds == SECONDS + 100 / SLOWEST
    assert not raised.value.permanent
    assert "secret" not in str(raised.value)
    assert any(come) == answers


def test_a_length_that_is_no_number_is_no_reason_to_give_up(answering: Answering) -> None:
    raw = b"HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\nbank"
    assert b"".join(pieces(answering(raw), 0, 100)) == b"bank"


@pytest.mark.parametrize("host", ["127.0.0.1:port", "a..b", "a" * 300])
def test_an_address_that_cannot_be_asked_is_one_line(host: str) -> None:
    for path in ("bank", "a bank", "b\u00e4nk"):
        with pytest.raises(WebError, match="no address that can be asked") as raised:
            list(pieces(f"http://{host}/{path}?secret", 0, 100))
        assert raised.value.permanent
        assert "secret" not in str(raised.value)


def test_a_url_that_cannot_even_be_taken_apart_is_one_line() -> None:
    assert shown("http://[/secret") == "what is given"
    with pytest.raises(ValueError, match="give http:// or https://"):
        checked_url("http://[/secret")
