"""The first round finds its model and images ready: greeting has made them."""

from __future__ import annotations

from pathlib import Path

import torch

from experiments.engines.folded import FoldedGrid
from recast_core.settings import Settings
from server.app import run_federation
from server.exchange.observer import LogObserver
from server.flower import server_identity


class Looking(LogObserver):
    """Notes which images are ready when the first round begins."""

    def __init__(self, grid: FoldedGrid) -> None:
        self.grid = grid
        self.ready: list[int] = []
        self.labelled: list[int] = []

    def round_started(self, task: str, round_: int, rounds: int, clients: int) -> None:
        for images in self.grid.held.tasks.values():
            rows = images.labelled_rows()
            self.labelled.append(len(rows))
            if images.store is not None:
                assert torch.isfinite(images.store.inputs(rows)).all()
            self.ready.append(0 if images.store is None else images.store.prepared)


def looked(folder: Path, settings: Settings) -> Looking:
    with server_identity(), FoldedGrid(2, settings) as grid:
        looking = Looking(grid)
        run_federation(grid, settings, folder, looking)
    return looking


def settings(tasks: str = "digits", **other: object) -> Settings:
    return Settings(tasks=tasks, rounds=1, epochs=1, device="cpu", **other)  # type: ignore[arg-type]


def test_all_training_images_are_ready_when_the_first_round_begins(tmp_path: Path) -> None:
    found = looked(tmp_path, settings())
    assert found.ready == found.labelled
    assert found.ready[0] > 100


def test_images_without_a_label_are_left_for_who_asks_for_them(tmp_path: Path) -> None:
    found = looked(tmp_path, settings(labels=40))
    assert found.ready == found.labelled == [40]


def test_nothing_is_made_ready_where_it_is_not_clear_what(tmp_path: Path) -> None:
    found = looked(tmp_path, settings(clients_per_round=1))
    assert found.ready == [0]
