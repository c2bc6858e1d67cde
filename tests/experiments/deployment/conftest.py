"""A federation of real processes on our own link, in a test's folder."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from experiments.measure.relay import LOOPBACK, Relay, Relays
from recast_core.settings import Settings
from server.record.registry import Registry

if TYPE_CHECKING:
    from conftest import Process


class Site:
    """Starts a server and clients, each with a folder of data of its own."""

    def __init__(
        self,
        folder: Path,
        tiny: Callable[..., Settings],
        start: Callable[..., Process],
        command_line: Callable[[Settings], list[str]],
        deal: Callable[..., None],
        check: Callable[[Path, Settings, int], None],
        relays: Relays,
    ) -> None:
        self.folder, self.run = folder, folder / "run"
        self.tiny, self._start, self._command_line = tiny, start, command_line
        self._deal, self._check, self._relays = deal, check, relays

    def settings(self, clients: int, **changes: Any) -> Settings:
        """One small task, dealt to so many clients, which are waited for if nothing else is said.

        Who is behind the others where a machine has no time for all is not to be left out.
        """
        one_task = {"tasks": self.tiny().tasks.split()[0], "run_dir": str(self.run)}
        settings = self.tiny(**{"max_lag": 0.0} | one_task | changes)
        self._deal(settings, clients, self.folder / "data")
        return settings

    def arguments(self, settings: Settings, clients: int, *more: str) -> list[str]:
        """Of ``recast serve``."""
        return ["serve", "--clients", str(clients), *more, *self._command_line(settings)]

    def serve(self, settings: Settings, clients: int = 2, *more: str) -> tuple[Process, int]:
        """A server at a free port, which it tells; ``--insecure`` where nothing more is said."""
        more = ("--listen", "127.0.0.1:0", *(more or ("--insecure",)))
        server = self._start("server", *self.arguments(settings, clients, *more))
        return server, int(server.says(r"listening at 127\.0\.0\.1:(\d+)\D")[1])

    def join(self, number: int, port: int, *more: str, log: str = "", **options: Any) -> Process:
        """A client; ``--insecure`` where nothing more is said."""
        name, more = f"edge-{number}", more or ("--insecure",)
        return self._start(
            log or name, "join", f"localhost:{port}", "--name", name, "--number", str(number),
            "--data", f"data/{number}", "--cache", f"cache/{number}", "--device", "cpu", *more,
            **options,
        )  # fmt: skip

    def held(self, port: int) -> Relay:
        """A way to ``port`` that takes its time, in the test's own process.

        A run that goes over it is not over before the test has looked, however long the machine
        lets the test wait for that: meanwhile nothing passes either.
        """
        relay = self._relays.open((LOOPBACK, port))
        relay.delay(0.05)
        return relay

    def equals_alone(self, settings: Settings, clients: int = 2) -> None:
        """The run gave what one process gives, one client after another."""
        self._check(self.run, settings, clients)

    def registry(self) -> Registry:
        """Of the run."""
        return Registry(self.run / "registry.sqlite")


@pytest.fixture
def site(
    tmp_path: Path,
    tiny: Callable[..., Settings],
    start: Callable[..., Process],
    command_line: Callable[[Settings], list[str]],
    deal: Callable[..., None],
    coefficients: Callable[[Path], list[Any]],
    alone: Callable[[Settings, int], Path],
) -> Iterator[Site]:
    def check(folder: Path, settings: Settings, clients: int) -> None:
        here, there = coefficients(folder), coefficients(alone(settings, clients))
        assert len(here) == len(there)
        for mine, other in zip(here, there, strict=True):
            np.testing.assert_allclose(mine, other, rtol=0, atol=1e-5)

    with Relays() as relays:
        yield Site(tmp_path, tiny, start, command_line, deal, check, relays)
