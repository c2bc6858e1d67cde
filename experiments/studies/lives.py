"""Processes that are forked from this one, which has imported everything: they begin at once."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

import client.app  # noqa: F401 - a life begins with everything imported
import experiments.command.join
import experiments.command.serve  # noqa: F401
import server.app  # noqa: F401
from experiments.command.cli import main as recast

FORK = multiprocessing.get_context("fork")


def life(arguments: Sequence[str], log: Path) -> None:
    """What a forked process does: the command, as if it had been started."""
    os.setsid()
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    for stream in (1, 2):
        os.dup2(descriptor, stream)
    sys.argv = ["recast", *arguments]
    signal.signal(signal.SIGINT, signal.default_int_handler)
    recast()


def started(arguments: list[str], log: Path) -> multiprocessing.process.BaseProcess:
    """A process of its own."""
    process = FORK.Process(target=life, args=(arguments, log), daemon=True)
    process.start()
    return process


def killed(process: multiprocessing.process.BaseProcess) -> None:
    """End a process as a power cut would."""
    process.kill()
    process.join()
