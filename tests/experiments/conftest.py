"""The `recast` command as a user starts it, and one finished run that several tests look at."""

from __future__ import annotations

import json
import logging
import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from client.app import app
from experiments.command.program import program
from experiments.engines.sequential import SequentialGrid
from experiments.measure import share
from recast_core.settings import Settings
from server.app import run_federation
from server.exchange.observer import LogObserver
from server.flower import server_identity
from server.record.registry import Registry
from tests.experiments.ends import LONG, patiently

COMMAND = program()


def environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "RAY_DEDUP_LOGS": "0", "COLUMNS": "200"}


def run(*args: str, timeout: float = 900, folder: Path | None = None) -> Any:
    return subprocess.run(
        [*COMMAND, *args],
        capture_output=True,
        text=True,
        timeout=timeout,
        env=environment() | {"PYTHONPATH": str(Path(__file__).parents[2])},
        cwd=folder,
        check=False,
    )


@pytest.fixture
def wait_until() -> Callable[..., None]:
    return patiently


@pytest.fixture(scope="session")
def recast() -> Callable[..., Any]:
    return run


@dataclass(frozen=True)
class Simulated:
    """A run of ``recast simulate``: what it printed, its report and its folder."""

    stdout: str
    stderr: str
    report: dict[str, Any]
    folder: Path


@pytest.fixture(scope="session")
def simulate(
    tiny: Callable[..., Settings], tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., Simulated]:
    """Run two clients on the tiny backbone to the end."""

    def go(engine: str) -> Simulated:
        folder = tmp_path_factory.mktemp(engine)
        # An actor of Ray's may start half a minute after another.
        options = arguments(tiny(rounds=2, run_dir=str(folder / "run"), max_lag=0.0))
        done = run(
            "simulate", "--clients", "2", "--engine", engine,
            "--json", str(folder / "report.json"), *options,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        report = json.loads((folder / "report.json").read_text())
        return Simulated(done.stdout, done.stderr, report, folder / "run")

    return go


def arguments(settings: Settings) -> list[str]:
    options = []
    for name, value in settings.as_dict().items():
        if not isinstance(value, bool):
            options += [f"--{name}", str(value)]
    return options


@pytest.fixture(scope="session")
def command_line() -> Callable[[Settings], list[str]]:
    return arguments


@pytest.fixture(scope="session")
def simulated(simulate: Callable[..., Simulated]) -> Simulated:
    return simulate("sequential")


class Process:
    """A recast command with its output in a file."""

    def __init__(self, log: Path, *arguments: str, before: tuple[str, ...] = ()) -> None:
        self.log = log
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
        environment["PYTHONPATH"] = str(Path(__file__).parents[2])
        with log.open("w") as file:
            self.process = subprocess.Popen(
                [*before, *program(), *arguments],
                stdout=file,
                stderr=subprocess.STDOUT,
                env=environment,
                cwd=log.parent,
                # A shell may have told its background jobs to ignore the signal.
                preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
            )

    def says(self, pattern: str, seconds: float = LONG) -> re.Match[str]:
        end = time.monotonic() + seconds
        while True:
            ended = self.process.poll() is not None  # looked at first: it may say it and end
            if (found := re.search(pattern, self.log.read_text())) is not None:
                return found
            assert not ended, self.log.read_text()
            assert time.monotonic() < end, self.log.read_text()
            time.sleep(0.02)

    def ends(self, seconds: float = LONG) -> int:
        return self.process.wait(seconds)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Process]]:
    """Start a recast command that does not outlive the test."""
    made: list[Process] = []

    def go(name: str, *arguments: str, before: tuple[str, ...] = ()) -> Process:
        made.append(Process(tmp_path / f"{name}.log", *arguments, before=before))
        return made[-1]

    yield go
    for one in made:
        if one.process.poll() is None:
            one.process.kill()
        one.process.wait()


@pytest.fixture(scope="session")
def deal() -> Callable[[Settings, int, Path], list[Path]]:
    """Write each simulated client's partition as a folder of its own."""
    return share.deal


@pytest.fixture(scope="session")
def coefficients() -> Callable[[Path], list[Any]]:
    """The coefficients of every round of a finished run, which holds each round once."""

    def go(folder: Path) -> list[Any]:
        with Registry(folder / "registry.sqlite") as registry:
            assert [run.status for run in registry.runs()] == ["finished"]
            return [
                registry.coefficients(1, task, round_)
                for task, last in sorted(registry.last_rounds(1).items())
                for round_ in range(1, last + 1)
            ]

    return go


@pytest.fixture
def alone(tmp_path: Path) -> Callable[[Settings, int], Path]:
    """The same run undisturbed, one client after another in this process; its folder."""

    def go(settings: Settings, clients: int) -> Path:
        folder = tmp_path / "alone"
        logging.getLogger("flwr").setLevel(logging.ERROR)
        with server_identity():
            grid = SequentialGrid(clients, app, settings, folder / "caches")
            run_federation(grid, settings, folder, LogObserver())
        return folder

    return go
