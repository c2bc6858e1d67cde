"""A network that dies or falls silent between real processes: what had come is kept, once."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from experiments.measure.relay import free_port
from tests.experiments.ends import LONG

if TYPE_CHECKING:
    from .conftest import Site

# So many that the test sees the first long before the last is over.
ROUNDS = 30
# 60 is what the link is meant to bear; a few seconds show the same in every run of the tests.
SILENCE = float(os.environ.get("RECAST_TEST_SILENCE", "5"))

RELAY = """
import os, signal, sys, time
from experiments.measure.relay import Relays
to, port, fatal = map(int, sys.argv[1:])
with Relays() as relays:
    relay = relays.open(("127.0.0.1", to), port)
    relay.delay(0.03 if fatal else 0)
    print("ready", flush=True)
    told = 0
    while True:
        time.sleep(0.005)
        down = relay.counted().down
        if down != told:  # nobody reads before the end, and a pipe holds only so much
            told = down
            print(told, flush=True)
        if fatal and told > fatal:
            os.kill(os.getpid(), signal.SIGKILL)
"""


class RelayProcess:
    """A relay that can be killed and stopped as a process; ``fatal`` bytes down kill it."""

    def __init__(self, to: int, port: int, fatal: int = 0) -> None:
        root = Path(__file__).parents[3]
        self.process = subprocess.Popen(
            [sys.executable, "-c", RELAY, str(to), str(port), str(fatal)],
            env={**os.environ, "PYTHONPATH": str(root)},
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        self.process.stdout.readline()

    def end(self) -> int:
        """Kill it; the bytes that it carried to the client."""
        self.process.kill()
        text, _ = self.process.communicate()
        return int(text.split()[-1])


@pytest.fixture
def relay() -> Iterator[Callable[..., RelayProcess]]:
    made: list[RelayProcess] = []

    def go(to: int, port: int, fatal: int = 0) -> RelayProcess:
        made.append(RelayProcess(to, port, fatal))
        return made[-1]

    yield go
    for one in made:
        one.process.kill()
        one.process.wait()


def test_a_relay_killed_in_the_download_of_the_bank_costs_only_what_was_on_the_way(
    site: Site, relay: Callable[..., RelayProcess]
) -> None:
    settings = site.settings(2, backbone="glyph_resnet20", target="conv")
    server, port = site.serve(settings)
    way = free_port()
    first = relay(port, way, fatal=150_000)
    edges = [site.join(0, port), site.join(1, way)]
    assert first.process.wait(LONG) == -signal.SIGKILL
    found = edges[1].says(r"fetched (\d+) of (\d+) bytes")
    kept, size = int(found[1]), int(found[2])
    second = relay(port, way)
    assert [process.ends() for process in (server, *edges)] == [0, 0, 0]
    assert 0 < kept < size
    assert second.end() < size - kept + 16_384, "the download began again"
    site.equals_alone(settings)
    assert edges[1].log.read_text().count("fetching") == 1


def test_a_network_that_falls_silent_in_a_round_delays_the_run_and_loses_nothing(
    site: Site, relay: Callable[..., RelayProcess]
) -> None:
    settings = site.settings(2, rounds=ROUNDS)
    server, port = site.serve(settings)
    way = free_port()
    between = relay(port, way)
    held = site.held(port)
    edges = [site.join(0, held.port), site.join(1, way)]
    server.says("round 1: 2 updates")
    between.process.send_signal(signal.SIGSTOP)
    held.delay(0)
    with site.registry() as registry:
        done = registry.last_rounds(1)[1]
    time.sleep(SILENCE)
    assert server.process.poll() is None
    between.process.send_signal(signal.SIGCONT)
    assert [process.ends() for process in (server, *edges)] == [0, 0, 0]
    assert done < ROUNDS
    site.equals_alone(settings)
    with site.registry() as registry:
        assert registry.refusals(1) == []
        assert registry.last_rounds(1) == {1: ROUNDS}
    assert "refused" not in server.log.read_text()
