"""A server that is killed goes on after its last finished round, and ends in the same bytes."""

from __future__ import annotations

import logging
import os
import random
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from client.app import app
from experiments.command.program import program
from experiments.engines.sequential import SequentialGrid
from recast_core.errors import RecastError
from recast_core.settings import Settings
from server.app import Conditions, run_federation
from server.exchange.observer import LogObserver
from server.flower import server_identity
from server.record.ledger import Ledger
from server.record.lock import settle
from server.record.registry import Registry
from tests.experiments import pausing

ROOT = Path(__file__).parents[3]
ROUNDS, CLIENTS = 12, 3
Command = Callable[[Settings], list[str]]


def start(options: list[str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*program(), "simulate",
         "--clients", str(CLIENTS), *options],
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT),
             "RECAST_PLUGINS": pausing.NAME},
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
    def settings(folder: str) -> Settings:
        return tiny(
            rounds=ROUNDS, run_dir=str(tmp_path / folder), parallel_tasks=2, clients_per_round=2,
            partition="dirichlet:1",
        )  # fmt: skip

    def learn(name: str) -> None:
        chosen, folder = settings(name), tmp_path / name
        with server_identity():
            grid = SequentialGrid(CLIENTS, app, chosen, tmp_path / f"caches-{name}")
            run_federation(
                grid,
                chosen,
                folder,
                LogObserver(),
                extra={"clients": CLIENTS},
                conditions=Conditions(patience=0),
            )

    logging.getLogger("flwr").setLevel(logging.ERROR)
    learn("whole")
    killed = tmp_path / "killed"
    # However late we are to kill it, it is not done: what it waits for never comes.
    pause = ["--log", f"pause:{2 * ROUNDS - 4}:{tmp_path / 'never'}"]
    chance = random.Random(time.time_ns())
    finished = 0
    for _ in range(2):
        child = start([*command_line(settings("killed")), *pause])
        assert child.stderr is not None
        lines = []
        for line in child.stderr:
            lines.append(line)
            if " round " in line:
                break
        time.sleep(chance.uniform(0, 0.1))
        child.send_signal(signal.SIGKILL)
        child.communicate()
        before, finished = finished, assert_whole(killed)
        assert before < finished < 2 * ROUNDS, lines
        with Registry(killed / "registry.sqlite") as registry:
            assert registry.runs()[0].status == "running"
            settle(registry)
            assert registry.runs()[0].status == "interrupted"
    learn("killed")
    assert assert_whole(killed) == 2 * ROUNDS
    assert outcome(killed) == outcome(tmp_path / "whole")


def test_other_settings_in_the_folder_of_a_killed_run_are_one_line(
    tiny: Callable[..., Settings], tmp_path: Path
) -> None:
    class Stop(LogObserver):
        def round_finished(self, task: str, round_: int, updates: int, seconds: float) -> None:
            raise KeyboardInterrupt

    def learn(observer: LogObserver, **changed: object) -> None:
        chosen = tiny(rounds=2, run_dir=str(tmp_path), **changed)
        with server_identity():
            grid = SequentialGrid(2, app, chosen, tmp_path / "caches")
            run_federation(grid, chosen, tmp_path, observer)

    with pytest.raises(KeyboardInterrupt):
        learn(Stop())
    with pytest.raises(RecastError, match=r"has learning-rate 0\.0, not 0\.5: give the same"):
        learn(LogObserver(), learning_rate=0.5)
    learn(LogObserver(), deadline=7.0)
    learn(LogObserver(), learning_rate=0.5)  # that one has finished, so this is another
    with Registry(tmp_path / "registry.sqlite") as registry:
        assert [run.status for run in registry.runs()] == ["finished", "finished"]
        assert [run.config["learning-rate"] for run in registry.runs()] == [0.0, 0.5]
        assert registry.last_rounds(1) == registry.last_rounds(2) == {1: 2, 2: 2}
    assert len(list(tmp_path.glob("bank-*"))) == 1
