"""Mosquitto, the MQTT broker of Debian's package, as a child process with a folder of its own."""

from __future__ import annotations

import os
import shutil
import socket
import time
from pathlib import Path

from experiments.measure.processes import Child, Processes
from experiments.measure.relay import LOOPBACK
from recast_core.errors import RecastError

SECONDS_TO_START = 120.0
# Who may do what: a client writes its own topic and nothing else. docs/mqtt.md shows the same.
ACCESS = """\
user serve
topic readwrite recast/#

pattern write recast/up/%u
pattern read recast/down/%u
pattern read recast/all/#
pattern read recast/body/#
"""
SECURE = """\
listener 8883
cafile certs/ca.pem
certfile certs/server.pem
keyfile certs/server.key
require_certificate true
use_identity_as_username true
use_username_as_clientid true
acl_file acl
"""


def program() -> str | None:
    """The broker's program, where it is installed."""
    return shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin")


class Mosquitto:
    """A broker at one port, which can be killed and started again."""

    def __init__(self, folder: Path, processes: Processes, port: int, *, secure: bool) -> None:
        """Write its files; it does not run yet.

        Args:
            folder: of its files; with ``secure`` it has ``certs``, which ``recast certs`` made.
            processes: end it with all others.
            port: of the loopback interface.
            secure: mutual TLS and the access list, else plain text for everybody.

        Raises:
            RecastError: the program is not installed.
        """
        found = program()
        if found is None:
            raise RecastError("no mosquitto on this machine: `apt-get install mosquitto`")
        self._program, self._processes, self.port = found, processes, port
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        text = SECURE if secure else "listener 8883\nallow_anonymous true\n"
        text = text.replace("listener 8883", f"listener {port} {LOOPBACK}")
        if os.geteuid() == 0:
            # Else it becomes another user, who cannot read the keys.
            text += "user root\n"
        (folder / "mosquitto.conf").write_text(text)
        (folder / "acl").write_text(ACCESS)
        (folder / "acl").chmod(0o600)
        self._child: Child | None = None

    def start(self) -> None:
        """Run it; return once it listens.

        Raises:
            RecastError: it does not.
        """
        command = [self._program, "-c", "mosquitto.conf"]
        child = self._child = self._processes.start("mosquitto", command, self._folder)
        child.wait_until(self._listens, SECONDS_TO_START, "it listened")

    def kill(self) -> None:
        """End it at once, as a power cut would; what it kept is lost."""
        assert self._child is not None
        self._child.stop(kill=True)

    def _listens(self) -> bool:
        time.sleep(0.02)
        try:
            socket.create_connection((LOOPBACK, self.port), 1).close()
        except OSError:
            return False
        return True
