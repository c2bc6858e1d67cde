"""The `recast` command as a user starts it, and one finished run that several tests look at."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from recast_core.settings import Settings

COMMAND = [sys.executable, "-m", "experiments.cli"]


def environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "RAY_DEDUP_LOGS": "0", "COLUMNS": "200"}


def run(*args: str, timeout: float = 300, folder: Path | None = None) -> Any:
    return subprocess.run(
        [*COMMAND, *args],
        capture_output=True,
        text=True,
        timeout=timeout,
        env=environment() | {"PYTHONPATH": str(Path(__file__).parents[2])},
        cwd=folder,
        check=False,
    )


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
        options = arguments(tiny(rounds=2, run_dir=str(folder / "run")))
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
