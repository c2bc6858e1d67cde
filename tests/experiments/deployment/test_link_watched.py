"""What a server shows while it runs: figures for Prometheus, and a live table on a terminal."""

from __future__ import annotations

import os
import pty
import re
import signal
import subprocess
import threading
import time
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING

from experiments.command.program import program
from experiments.measure.relay import free_port
from tests.experiments.ends import LONG

if TYPE_CHECKING:
    from .conftest import Site


def figures(port: int) -> dict[str, float]:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=LONG) as page:
        lines = page.read().decode().splitlines()
    return {name: float(value) for name, value in (x.rsplit(" ", 1) for x in lines if x[0] != "#")}


def test_the_figures_for_prometheus_follow_a_run(
    site: Site,
) -> None:
    settings, page = site.settings(2, rounds=5), free_port()
    server, port = site.serve(settings, 2, "--insecure", "--metrics", str(page))
    before = figures(page)
    edges = [site.join(0, port), site.join(1, site.held(port).port)]
    server.says("round 1: 2 updates")
    # Held, so that the run does not end before it was looked at.
    edges[1].process.send_signal(signal.SIGSTOP)
    during = figures(page)
    edges[1].process.send_signal(signal.SIGCONT)
    assert [process.ends() for process in (server, *edges)] == [0, 0, 0]
    assert before["recast_clients_connected"] == 0
    assert during["recast_clients_connected"] == during["recast_clients_known"] == 2
    assert before['recast_frame_bytes_total{direction="up"}'] == 0
    assert during['recast_frame_bytes_total{direction="up"}'] > 100
    assert during['recast_frame_bytes_total{direction="down"}'] > 1_000, "the bank went down"


class Terminal:
    """A command on a terminal of its own, and what it wrote there."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        master, slave = pty.openpty()
        root = str(Path(__file__).parents[3])
        own = {"PYTHONPATH": root, "OMP_NUM_THREADS": "1", "TERM": "xterm", "COLUMNS": "120"}
        self.process = subprocess.Popen(
            [*program(), *arguments],
            stdin=slave, stdout=slave, stderr=slave, cwd=folder, env={**os.environ, **own},
            start_new_session=True,
        )  # fmt: skip
        os.close(slave)
        self._master, self._raw = master, b""
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    @property
    def raw(self) -> str:
        return self._raw.decode(errors="replace")

    @property
    def text(self) -> str:
        """Without colours and movements of the cursor."""
        return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", self.raw)

    def shows(self, pattern: str, seconds: float = LONG) -> re.Match[str]:
        end = time.monotonic() + seconds
        while True:
            ended = not self._reader.is_alive()  # looked at first: it may show it and end
            if (found := re.search(pattern, self.text)) is not None:
                return found
            assert not ended, self.text
            assert time.monotonic() < end, self.text
            time.sleep(0.02)

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self._reader.join(LONG)
        os.close(self._master)

    def _read(self) -> None:
        while True:
            try:
                content = os.read(self._master, 65536)
            except OSError:
                return
            if not content:
                return
            self._raw += content


def test_a_terminal_shows_who_is_there_and_is_left_as_it_was_found(
    site: Site,
) -> None:
    settings = site.settings(2, rounds=20, tasks=site.tiny().tasks)
    options = "--listen", "127.0.0.1:0", "--insecure"
    server = Terminal(site.folder, *site.arguments(settings, 2, *options))
    try:
        server.shows("waiting for clients")
        port = int(server.shows(r"listening at\s+127\.0\.0\.1:(\d+)\D")[1])
        edges = [site.join(0, port), site.join(1, site.held(port).port)]
        server.shows(r"a: round \d+ of 20, 2 clients \| 2 of 2 connected \| [\d,]+ B up")
        server.shows(r"edge-0\s+(working|idle)\s+[\d,]+\s+[\d,]+")
        server.shows(r"last: a \d+\.\d %")
        server.process.terminate()
        assert server.process.wait(LONG) in (0, 130)
        server._reader.join(LONG)
        assert server.raw.rfind("\x1b[?25h") > server.raw.rfind("\x1b[?25l") >= 0, "no cursor"
        assert "Traceback" not in server.text
        for edge in edges:
            edge.process.terminate()
            assert edge.ends() == 0
    finally:
        server.close()
