"""SIGTERM ends a run that has nothing left to learn or to measure as finished, any other not."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from experiments.engines.folded import FoldedGrid
from recast_core.settings import Settings
from recast_core.task_spec import parse_tasks
from server.app import Conditions, run_federation
from server.exchange.observer import LogObserver
from server.flower import server_identity
from server.record.control import add_task
from server.record.registry import Registry
from server.rounds.strategy import FedRecast
from server.terminate import Terminated


def ends(settings: Settings, folder: Path) -> bool:
    """Whether a run comes to its end, or is to be started again; and what its registry says."""
    try:
        with server_identity():
            run_federation(
                FoldedGrid(2, settings), settings, folder, LogObserver(),
                conditions=Conditions(patience=0.0),
            )  # fmt: skip
        ended = True
    except Terminated:  # which ends pytest, too
        ended = False
    with Registry(folder / "registry.sqlite") as registry:
        assert registry.runs()[0].status == ("finished" if ended else "interrupted")
    return ended


def told_before(monkeypatch: pytest.MonkeyPatch, step: str, also: Callable[[], object]) -> None:
    """Have the process told to end when the server comes to a step."""
    real, told = getattr(FedRecast, step), []

    def interrupted(*arguments: object, **options: object) -> object:
        if not told:
            told.append(True)
            also()
            os.kill(os.getpid(), signal.SIGTERM)
        return real(*arguments, **options)

    monkeypatch.setattr(FedRecast, step, interrupted)


def test_a_run_that_is_told_to_end_between_its_last_record_and_waiting_is_finished(
    tiny: Callable[..., Settings], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = tiny(tasks=tiny().tasks.split()[0], rounds=1, keep_running=True)
    told_before(monkeypatch, "evaluate_again", lambda: None)
    assert ends(settings, tmp_path)


@pytest.mark.parametrize("step", ["aggregate_train", "aggregate_evaluate", "evaluate_again"])
def test_one_that_has_something_left_goes_on_when_it_is_started_again(
    tiny: Callable[..., Settings], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    settings = tiny(rounds=1)
    told_before(monkeypatch, step, lambda: None)
    assert not ends(settings, tmp_path)
    assert ends(settings, tmp_path)


def test_a_task_that_is_added_as_the_run_is_told_to_end_is_left_for_the_next_start(
    tiny: Callable[..., Settings], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = tiny().tasks.split()
    settings = tiny(tasks=first, rounds=1, keep_running=True)

    def add() -> None:
        with Registry(tmp_path / "registry.sqlite") as registry:
            add_task(registry, 1, parse_tasks(second)[0])

    told_before(monkeypatch, "evaluate_again", add)
    assert not ends(settings, tmp_path)
