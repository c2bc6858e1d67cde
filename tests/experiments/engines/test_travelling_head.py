"""A head that the server makes, where nobody asked how good it is without the coefficients."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from experiments.engines.folded import FoldedGrid
from recast_core.settings import Settings
from server.app import Conditions, run_federation
from server.exchange.observer import LogObserver
from server.flower import server_identity
from server.record.registry import Registry


@pytest.mark.parametrize("baseline", [True, False])
def test_a_head_that_was_not_asked_for_is_not_reported_missing(
    tiny: Callable[..., Settings],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    baseline: bool,
) -> None:
    settings = tiny(head="means", baseline=baseline)
    with server_identity():
        grid = FoldedGrid(2, settings)
        conditions = Conditions(patience=0.0)
        run_federation(grid, settings, tmp_path, LogObserver(), conditions=conditions)
    assert "no head for task" not in caplog.text
    with Registry(tmp_path / "registry.sqlite") as registry:
        found = [row.head_only_accuracy is not None for row in registry.accuracies(1)]
        assert found == [baseline] * len(found)
        assert found
        assert all(registry.head(1, task) for task in (1, 2))
