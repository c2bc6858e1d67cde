"""What greeting leaves behind is kept out of garbage collections while a grid is in use."""

from __future__ import annotations

import gc
from pathlib import Path

import pytest

from experiments.engines.folded import FoldedGrid
from recast_core.settings import Settings
from server.app import run_federation
from server.exchange.observer import LogObserver
from server.flower import server_identity
from server.record.registry import Registry


class Watching(LogObserver):
    def __init__(self) -> None:
        self.frozen: list[int] = []
        self.seconds: list[float] = []

    def round_finished(self, task: str, round_: int, updates: int, seconds: float) -> None:
        self.frozen.append(gc.get_freeze_count())
        self.seconds.append(seconds)


def run(settings: Settings, folder: Path, *, within: bool) -> Watching:
    watching = Watching()
    with server_identity():
        grid = FoldedGrid(2, settings)
        if within:
            with grid:
                run_federation(grid, settings, folder, watching)
        else:
            run_federation(grid, settings, folder, watching)
    return watching


@pytest.fixture
def settings() -> Settings:
    return Settings(tasks="digits", rounds=2, epochs=1, device="cpu")


def test_collections_leave_out_what_greeting_made_until_the_end(
    settings: Settings, tmp_path: Path
) -> None:
    assert gc.get_freeze_count() == 0
    assert min(run(settings, tmp_path / "within", within=True).frozen) > 1000
    assert gc.get_freeze_count() == 0
    assert run(settings, tmp_path / "without", within=False).frozen == [0, 0]


def test_what_somebody_else_has_frozen_stays_frozen(settings: Settings, tmp_path: Path) -> None:
    gc.freeze()
    try:
        before = gc.get_freeze_count()
        run(settings, tmp_path, within=True)
        # A frozen object may go, but none is let loose by us.
        assert gc.get_freeze_count() > 0.9 * before
    finally:
        gc.unfreeze()


def test_a_rounds_time_ends_with_its_commit(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import time

    commit = Registry.record_rounds

    def slow(self: Registry, *args: object, **more: object) -> None:
        commit(self, *args, **more)  # type: ignore[arg-type]
        time.sleep(0.5)

    monkeypatch.setattr(Registry, "record_rounds", slow)
    watching = run(settings, tmp_path, within=False)
    assert min(watching.seconds) > 0.5
    registry = Registry(tmp_path / "registry.sqlite")
    [found] = registry.runs()
    assert [one.seconds for one in registry.rounds(found.id, 1)] == watching.seconds
