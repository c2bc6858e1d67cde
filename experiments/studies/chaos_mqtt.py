"""Kill broker, server and clients: ``python -m experiments.studies.chaos_mqtt --kills 12``.

What must hold, and what is printed, is as in ``experiments.studies.chaos``; the broker, Mosquitto
without persistence, loses what it kept with each of its kills.
"""

from __future__ import annotations

import atexit
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import client.mqtt  # noqa: F401
import server.mqtt  # noqa: F401 - a life begins with everything imported
from experiments.command import certs
from experiments.measure.mosquitto import Mosquitto
from experiments.measure.processes import Processes
from experiments.studies.chaos import Site
from experiments.studies.chaos import main as chaos
from protos.mqtt import SERVER


@dataclass
class BrokerSite(Site):
    """A site whose messages go through a broker of its own."""

    _processes: Processes | None = field(default=None, init=False)
    _broker: Mosquitto | None = field(default=None, init=False)
    kinds: ClassVar[Sequence[str]] = ("server", "client", "client", "broker", "broker")

    def prepare(self) -> None:
        """Write images and certificates, and start the broker."""
        super().prepare()
        certs.add(self.root / "certs", SERVER, force=False)
        self._processes = Processes(self.root / "logs", {}).__enter__()
        atexit.register(self._processes.close)
        self._broker = Mosquitto(self.root, self._processes, self.port, secure=True)
        self._broker.start()

    def listening(self) -> Sequence[str]:
        """Where a server is to be."""
        return self.joining()

    def joining(self) -> Sequence[str]:
        """Where a client finds it."""
        return "--mqtt", f"mqtts://localhost:{self.port}"

    def befall(self, what: str) -> None:
        """Kill the broker; another one takes its place a moment later."""
        assert self._broker is not None
        self._broker.kill()
        time.sleep(0.2)
        self._broker.start()


if __name__ == "__main__":
    sys.exit(chaos(BrokerSite, __doc__))
