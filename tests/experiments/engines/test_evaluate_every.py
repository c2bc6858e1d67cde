"""Learning curves: a task is also evaluated on its way, which is counted and changes nothing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from experiments.engines.folded import FoldedGrid
from experiments.report.data import report_data
from experiments.report.summary import summarise
from recast_core.errors import RecastError
from recast_core.settings import Settings
from server.app import Conditions, RunResult, run_federation
from server.exchange.observer import LogObserver
from server.flower import server_identity
from server.record.ledger import Ledger
from server.record.registry import Registry


def run(settings: Settings, folder: Path) -> RunResult:
    with server_identity():
        grid = FoldedGrid(2, settings)
        return run_federation(
            grid, settings, folder, LogObserver(), conditions=Conditions(patience=0.0)
        )


def test_rounds_on_the_way_are_evaluated_counted_and_learned_as_before(
    tiny: Callable[..., Settings], tmp_path: Path
) -> None:
    plain = run(tiny(rounds=3), tmp_path / "plain")
    curved = run(tiny(rounds=3, evaluate_every=1), tmp_path / "curved")
    data = [report_data(found.registry) for found in (plain, curved)]
    counts = [[row["kind"] for row in one["accuracy"]].count("round") for one in data]
    assert counts == [0, 2 * len(data[0]["tasks"])]
    with Registry(plain.registry) as first, Registry(curved.registry) as second:
        up = [
            Ledger(book).totals(1, by=("kind", "direction", "layer"))["metrics", "up", "message"]
            for book in (first, second)
        ]
        assert up[1] > 2 * up[0]
        for task in first.tasks(1):
            np.testing.assert_array_equal(
                first.coefficients(1, task.number), second.coefficients(1, task.number)
            )
            accuracies = [row.accuracy for row in second.rounds(1, task.number)]
            assert [accuracy is None for accuracy in accuracies] == [False, False, True]
    told = [summarise(found, "folded", 0, 1.0)["tasks"] for found in (plain, curved)]
    assert [t["accuracy"] for t in told[0]] == [t["accuracy"] for t in told[1]]


def test_no_round_is_evaluated_every_minus_one(tiny: Callable[..., Settings]) -> None:
    with pytest.raises(RecastError, match="evaluate_every"):
        tiny(evaluate_every=-1)
