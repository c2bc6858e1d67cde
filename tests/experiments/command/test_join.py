"""A client that is told to stop stops, whatever it was waiting for."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from client.app import app
from client.link import LinkClient, LocalApp
from client.link.channel import Endpoint
from experiments.command import join as command
from experiments.command.join import JoinOptions, join
from protos import link_v1_pb2 as link


@pytest.fixture(autouse=True)
def signals_as_before() -> Iterator[None]:
    """The command leaves its process deaf, which is about to end; this one goes on."""
    before = [(number, signal.getsignal(number)) for number in (signal.SIGTERM, signal.SIGINT)]
    yield
    for number, handler in before:
        signal.signal(number, handler)


class Stream:
    """A server's side of a stream whose Welcome comes when the test says."""

    def __init__(self) -> None:
        self.welcome: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self.asked = asyncio.Event()

    async def write(self, frame: bytes) -> None:
        """Take the Join."""

    async def read(self) -> bytes:
        if self.welcome.done():
            await asyncio.sleep(3600)
        self.asked.set()
        return await self.welcome


ROOT = Path(__file__).parents[3]


class Server:
    """Stands for endpoint and channel."""

    target = "here:1"

    def __init__(self, stream: Stream) -> None:
        self.stream = stream

    def claim(self, name: str) -> str:
        return name

    def connect(self) -> Server:
        return self

    def stream_stream(self, method: str) -> Any:
        return lambda: self.stream

    async def close(self) -> None:
        """Nothing is open."""


def options(folder: Path) -> JoinOptions:
    return JoinOptions(
        data=folder, name="edge", certs=folder, cache=folder, number=None, backbone=None,
        device="cpu", skip_unreadable=False, insecure=True, force_insecure=False, keepalive=240.0,
        json_log=False,
    )  # fmt: skip


def test_a_stop_that_comes_with_the_welcome_is_not_lost(tmp_path: Path) -> None:
    async def scene() -> bool:
        stream = Stream()
        client = LinkClient(cast(Endpoint, Server(stream)), "edge", LocalApp(app, {}, tmp_path, {}))
        work = asyncio.ensure_future(client.run())
        await stream.asked.wait()
        stream.welcome.set_result(
            link.FromServer(welcome=link.Welcome(session=1, settings="{}")).SerializeToString()
        )
        await asyncio.sleep(0)
        work.cancel()
        await asyncio.wait({work}, timeout=60)
        stopped = work.cancelled()
        work.cancel()
        return stopped

    assert asyncio.run(scene())


def test_a_signal_ends_a_client_below_which_a_cancellation_is_lost(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    lost = []

    class Deaf:
        """Loses the first cancellation, as a library may."""

        busy = False

        async def run(self) -> None:
            asyncio.get_running_loop().call_later(0.05, os.kill, os.getpid(), signal.SIGTERM)
            try:
                await asyncio.sleep(3600)
            except asyncio.CancelledError:
                lost.append(1)
            await asyncio.sleep(3600)

    monkeypatch.setattr(command, "_client", lambda *_: Deaf)
    monkeypatch.setattr(command, "STOP_AGAIN_SECONDS", 0.1)
    assert join("localhost:1", options(tmp_path)) == 0
    assert lost == [1]


def test_a_signal_that_comes_as_a_client_ends_by_itself_does_not_kill_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    class Done:
        """A client of a run that is finished."""

        busy = False

        async def run(self) -> None:
            """Nothing is left to do."""

    monkeypatch.setattr(command, "_client", lambda *_: Done)
    assert join("localhost:1", options(tmp_path)) == 0
    os.kill(os.getpid(), signal.SIGTERM)
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(0)


def test_a_signal_at_the_very_end_of_a_command_leaves_its_exit_code() -> None:
    script = (
        "import atexit, os, signal, sys\n"
        "import experiments.command.cli as cli, recast_fl\n"
        "atexit.register(os.kill, os.getpid(), signal.SIGTERM)\n"
        "cli.main = lambda: sys.exit(int(sys.argv[1]))\n"
        "print('said')\n"
        "recast_fl.main()\n"
    )
    for code in (0, 2):
        done = subprocess.run(
            [sys.executable, "-c", script, str(code)], cwd=ROOT, capture_output=True, text=True,
            check=False,
        )  # fmt: skip
        assert (done.returncode, done.stdout, done.stderr) == (code, "said\n", "")
