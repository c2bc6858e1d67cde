"""A crew of workers finds what one process finds, bit by bit, whatever becomes of a worker."""

from __future__ import annotations

import os
import resource
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from experiments.engines.crew import crew_for
from experiments.engines.crew.base import Post
from experiments.engines.crew.grid import CrewGrid
from experiments.engines.crew.local import LocalCrew
from experiments.engines.crew.ray import RayCrew
from experiments.engines.crew.spread import even
from experiments.engines.folded import FoldedGrid, FoldedOptions
from recast_core.errors import RecastError
from recast_core.settings import Settings
from server.app import run_federation
from server.exchange.observer import LogObserver
from server.flower import server_identity
from server.record.registry import Registry

CLIENTS = 7


@pytest.fixture(autouse=True)
def _server() -> Iterator[None]:
    with server_identity():
        yield


@pytest.fixture
def settings() -> Settings:
    return Settings(tasks="digits", rounds=2, epochs=1, device="cpu", partition="dirichlet:0.5")


def crew_of(count: int, settings: Settings, clients: int = CLIENTS) -> LocalCrew:
    post = Post(settings, FoldedOptions(), clients, torch.get_num_threads(), tuple(sys.path))
    return LocalCrew(count, post)


def learned(grid: FoldedGrid, settings: Settings, folder: Path, watch: Any = None) -> Any:
    """Coefficients of every round, and accuracies."""
    run_federation(grid, settings, folder, watch or LogObserver())
    registry = Registry(folder / "registry.sqlite")
    [run] = registry.runs()
    rounds = [registry.rounds(run.id, task.number) for task in registry.tasks(run.id)]
    vectors = [one.coefficients for task in rounds for one in task]
    told = [(one.task, one.accuracy, one.head_only_accuracy) for one in registry.accuracies(run.id)]
    return vectors, told


class Killing(LogObserver):
    """Stops a worker when a round begins and kills it while it has work in its hands."""

    def __init__(self, crew: LocalCrew) -> None:
        self.crew, self.killed = crew, list[int]()

    def round_started(self, task: str, round_: int, rounds: int, clients: int) -> None:
        pid = self.crew.processes[round_ % 3]
        os.kill(pid, signal.SIGSTOP)
        threading.Timer(0.3, os.kill, (pid, signal.SIGKILL)).start()
        self.killed.append(pid)


def test_one_two_and_three_workers_find_what_one_process_finds_also_if_some_are_killed(
    settings: Settings, tmp_path: Path
) -> None:
    expected = learned(FoldedGrid(CLIENTS, settings), settings, tmp_path / "0")
    assert len(expected[0]) == 2
    with closing(crew_of(3, settings)) as crew:
        before = crew.processes
        for count in (1, 2, 3):
            crew.count = count
            killing = Killing(crew) if count == 3 else LogObserver()
            grid = CrewGrid(CLIENTS, settings, crew)
            found = learned(grid, settings, tmp_path / str(count), killing)
            np.testing.assert_array_equal(found[0], expected[0])
            assert found[1] == expected[1]
        assert isinstance(killing, Killing)
        assert set(killing.killed) <= set(before) - set(crew.processes)
        assert len(killing.killed) == 2
    assert not crew.processes


def test_a_ray_cluster_finds_what_one_process_finds_also_if_an_actor_is_killed(
    settings: Settings, tmp_path: Path
) -> None:
    expected = learned(FoldedGrid(CLIENTS, settings), settings, tmp_path / "0")
    killed: list[int] = []

    class KillingActor(LogObserver):
        def round_started(self, task: str, round_: int, rounds: int, clients: int) -> None:
            if round_ == 2:
                assert isinstance(crew, RayCrew)
                killed.append(crew.processes[0])
                os.kill(killed[0], signal.SIGKILL)

    with crew_for(2, "local", settings, FoldedOptions(), CLIENTS) as crew:
        found = learned(CrewGrid(CLIENTS, settings, crew), settings, tmp_path / "1", KillingActor())
    np.testing.assert_array_equal(found[0], expected[0])
    assert found[1] == expected[1]
    assert killed


def test_an_address_without_a_cluster_is_one_line(settings: Settings) -> None:
    with (
        pytest.raises(RecastError, match=r"no Ray cluster at 127.0.0.1:9 .*ray start") as caught,
        crew_for(2, "127.0.0.1:9", settings, FoldedOptions(), CLIENTS),
    ):
        raise AssertionError
    assert "\n" not in str(caught.value)


def test_a_worker_without_memory_ends_the_run_in_one_line(
    settings: Settings, tmp_path: Path
) -> None:
    with closing(crew_of(1, settings, 2)) as crew:
        small = replace(settings, rounds=1, batch=1)
        learned(CrewGrid(2, small, crew), small, tmp_path / "small")
        [pid] = crew.processes
        room = (int(Path(f"/proc/{pid}/statm").read_text().split()[0]) << 12) + (128 << 20)
        resource.prlimit(pid, resource.RLIMIT_AS, (room, room))
        large = replace(settings, rounds=1, batch=1024)
        with pytest.raises(RecastError, match="ran out of memory: use fewer --workers") as caught:
            learned(CrewGrid(2, large, crew), large, tmp_path / "large")
        assert "\n" not in str(caught.value)
        # It was replaced, and the crew is as good as new.
        learned(CrewGrid(2, large, crew), large, tmp_path / "again")


def test_shares_are_neighbours_of_equal_weight() -> None:
    assert even([1] * 7, 3) == [[0, 1], [2, 3, 4], [5, 6]]
    assert even([5, 1, 1, 1, 1, 1], 2) == [[0], [1, 2, 3, 4, 5]]
    assert even([1], 3) == [[0]]
