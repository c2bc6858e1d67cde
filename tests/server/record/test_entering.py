"""Many rows in one statement: each once, in their order, all or none."""

from __future__ import annotations

from pathlib import Path

import pytest

from recast_core.errors import RecastError
from server.record.entering import ROWS_A_STATEMENT
from server.record.ledger import Ledger
from server.record.registry import Registry
from server.record.rows import LedgerRow


def rows(count: int, task: str = "a") -> list[LedgerRow]:
    return [LedgerRow(task, 1, str(i), "up", "coefficients", "message", i) for i in range(count)]


@pytest.mark.parametrize("count", [0, 1, ROWS_A_STATEMENT, 2 * ROWS_A_STATEMENT + 7])
def test_every_row_is_entered_once_and_in_its_order(tmp_path: Path, count: int) -> None:
    with Registry(tmp_path / "registry.db") as registry:
        run = registry.start_run({}, bytes(32), {}, "test")
        registry.add_task(run, "a", 2)
        registry.record_traffic(run, rows(count))
        found = Ledger(registry).rows(run)
    told = [(run, "a", 1, str(i), "up", "coefficients", "message", i) for i in range(count)]
    assert found == told


def test_one_row_that_cannot_be_takes_all_others_with_it(tmp_path: Path) -> None:
    with Registry(tmp_path / "registry.db") as registry:
        run = registry.start_run({}, bytes(32), {}, "test")
        registry.add_task(run, "a", 2)
        with pytest.raises(RecastError):
            registry.record_traffic(run, [*rows(ROWS_A_STATEMENT), *rows(1, "unknown")])
        assert Ledger(registry).rows(run) == []
