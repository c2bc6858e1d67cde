"""A server that is killed goes on after its last finished round, and ends in the same bytes."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from recast_core.settings import Settings
from server.ledger import Ledger
from server.lock import settle
from server.registry import Registry

ROOT = Path(__file__).parents[2]
ROUNDS = 4
Command = Callable[[Settings], list[str]]


def start(options: list[str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "experiments.cli", "simulate", "--clients", "3", *options],
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
    )  # fmt: skip


def outcome(folder: Path) -> tuple[dict[str, bytes], list[tuple[object, ...]]]:
    """Coefficients by task after every round, and the accuracies."""
    with Registry(folder / "registry.sqlite") as registry:
        vectors = {
            f"{task.name}{entry.round}": entry.coefficients
            for task in registry.tasks(1)
            for entry in registry.rounds(1, task.number)
        }
        found = [
            (a.task, a.after_task, a.accuracy, a.head_only_accuracy) for a in registry.accuracies(1)
        ]
    return vectors, found


def assert_whole(folder: Path) -> int:
    """Registry and ledger hold the same rounds, each with all its updates; how many."""
    with Registry(folder / "registry.sqlite") as registry:
        assert len(registry.runs()) == 1
        recorded = {
            (task.name, entry.round): entry.clients
            for task in registry.tasks(1)
            for entry in registry.rounds(1, task.number)
        }
        rows = Ledger(registry).totals(
            1, by=("task", "round", "client", "kind", "direction", "layer")
        )
    updates: dict[tuple[object, object], int] = {}
    for task, round_, _, kind, direction, layer in rows:
        if (kind, direction, layer) == ("coefficients", "up", "message"):
            updates[task, round_] = updates.get((task, round_), 0) + 1
    assert updates == recorded
    return len(recorded)


def test_a_server_killed_again_and_again_ends_in_the_same_bytes(
    tiny: Callable[..., Settings], command_line: Command, tmp_path: Path
) -> None:
    def options(folder: str) -> list[str]:
        return command_line(
            tiny(
                rounds=ROUNDS, run_dir=str(tmp_path / folder), parallel_tasks=2,
                clients_per_round=2, partition="dirichlet:1",
            )
        )  # fmt: skip

    whole = start(options("whole"))
    _, errors = whole.communicate(timeout=120)
    assert whole.returncode == 0, errors
    chance = random.Random(time.time_ns())
    finished = 0
    for _ in range(3):
        child = start(options("killed"))
        assert child.stderr is not None
        lines = []
        for line in child.stderr:
            lines.append(line)
            if " round " in line:
                break
        time.sleep(chance.uniform(0, 0.3))
        child.send_signal(signal.SIGKILL)
        child.communicate()
        assert lines
        before, finished = finished, assert_whole(tmp_path / "killed")
        assert finished > before or finished == 2 * ROUNDS, lines
        with Registry(tmp_path / "killed" / "registry.sqlite") as registry:
            settle(registry)
            assert registry.runs()[0].status in ("interrupted", "finished")
        if registry_status(tmp_path / "killed") == "finished":
            break
    else:
        last = start(options("killed"))
        _, errors = last.communicate(timeout=120)
        assert last.returncode == 0, errors
    assert assert_whole(tmp_path / "killed") == 2 * ROUNDS
    assert registry_status(tmp_path / "killed") == "finished"
    assert outcome(tmp_path / "killed") == outcome(tmp_path / "whole")


def registry_status(folder: Path) -> str:
    with Registry(folder / "registry.sqlite") as registry:
        return registry.runs()[0].status
