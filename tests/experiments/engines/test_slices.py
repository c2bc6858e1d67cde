"""A round that comes and goes in slices is the same round."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from experiments.engines.folded import FoldedGrid
from experiments.engines.local import LocalGrid
from recast_core.settings import Settings
from server.app import run_federation
from server.exchange.observer import LogObserver
from server.exchange.slices import slices
from server.flower import server_identity
from server.record.ledger import Ledger
from server.record.registry import Registry

CLIENTS = 7


class Watching(LogObserver):
    def __init__(self) -> None:
        super().__init__()
        self.said: list[tuple[Any, ...]] = []

    def joined(self, clients: int, delivered: int) -> None:
        self.said.append((clients, delivered))

    def round_finished(self, task: str, round_: int, updates: int, seconds: float) -> None:
        self.said.append((task, round_, updates))


def learned(settings: Settings, folder: Path) -> tuple[Any, ...]:
    """Coefficients, accuracies, bytes by client, and what an observer was told."""
    watching = Watching()
    with server_identity():
        run_federation(FoldedGrid(CLIENTS, settings), settings, folder, watching)
    registry = Registry(folder / "registry.sqlite")
    [run] = registry.runs()
    rounds = [
        one for task in registry.tasks(run.id) for one in registry.rounds(run.id, task.number)
    ]
    found = [(one.task, one.accuracy, one.clients) for one in registry.accuracies(run.id)]
    columns = ("task", "round", "client", "direction", "kind", "layer")
    bytes_of = Ledger(registry).totals(run.id, columns)
    return [one.coefficients for one in rounds], found, bytes_of, watching.said


@pytest.mark.parametrize(
    "settings",
    [
        Settings(
            tasks="digits digits+inverted",
            rounds=2,
            epochs=1,
            device="cpu",
            parallel_tasks=2,
            error_feedback=True,
            bits=3,
        ),
        Settings(tasks="digits", rounds=1, epochs=1, device="cpu", head="ridge"),
    ],
    ids=["two tasks", "a head that travels"],
)
def test_a_round_in_slices_is_the_same_round(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = learned(settings, tmp_path / "whole")
    monkeypatch.setattr(LocalGrid, "at_once", 3)
    pushed: list[int] = []
    push = FoldedGrid.push_messages

    def counted(self: FoldedGrid, messages: Any) -> Any:
        messages = list(messages)
        pushed.append(len(messages))
        return push(self, messages)

    monkeypatch.setattr(FoldedGrid, "push_messages", counted)
    assert learned(settings, tmp_path / "slices") == expected
    assert pushed.count(3) >= 4


def test_slices_hold_everything_once() -> None:
    settings = Settings(tasks="digits", device="cpu")
    grid = FoldedGrid(1, settings)
    grid.at_once = 3
    assert list(slices(grid, range(7))) == [[0, 1, 2], [3, 4, 5], [6]]
    assert list(slices(grid, range(3))) == [[0, 1, 2]]
    assert list(slices(grid, [])) == [[]]
