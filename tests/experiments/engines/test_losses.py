"""Training losses: known without a byte in this process, told in 3 bytes where asked for."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from client.app import app
from experiments.engines.folded import FoldedGrid
from experiments.engines.sequential import SequentialGrid
from experiments.report.data import report_data
from protos import recast_v1_pb2 as pb
from recast_core.errors import RecastError
from recast_core.settings import LOSS, Settings
from recast_core.wire.loss import pack_loss
from recast_core.wire.messages import RefusedError
from server.app import run_federation
from server.exchange.observer import LogObserver
from server.flower import server_identity
from server.record.history import History
from server.record.ledger import Ledger
from server.record.losses import client_losses, round_losses
from server.record.registry import Registry
from server.record.rewinding import ask_rewind, rewind_asked
from server.rounds.losses import told_loss

Make = Callable[..., Settings]
CLIENTS = 3


def run(settings: Settings, folder: Path, *, alone: bool = False) -> Path:
    with server_identity():
        grid = (
            SequentialGrid(CLIENTS, app, settings, folder / "caches")
            if alone
            else FoldedGrid(CLIENTS, settings)
        )
        return run_federation(grid, settings, folder, LogObserver()).registry


def sent(registry: Path) -> int:
    with Registry(registry) as found:
        totals = Ledger(found).totals(1, by=("kind", "direction", "layer"))
        return totals["coefficients", "up", "message"]


def test_engines_in_this_process_know_losses_and_send_none(tiny: Make, tmp_path: Path) -> None:
    settings = tiny(rounds=3, epochs=2)
    registries = [run(settings, tmp_path / "folded")]
    registries.append(run(settings, tmp_path / "alone", alone=True))
    found = []
    for path in registries:
        with History(path, read_only=True) as history:
            found.append(round_losses(history, 1))
            each = client_losses(history, 1, 1, 3)
            assert sorted(each) == ["1", "2", "3"]
            shares = {row.client: row.train_examples for row in history.shares(1) if row.task == 1}
            mean = np.average([each[c] for c in each], weights=[shares[c] for c in each])
            assert found[-1][1, 3] == pytest.approx(mean)
    assert found[0] == pytest.approx(found[1], abs=1e-4)
    assert len(found[0]) == 6
    assert found[0][1, 3] < found[0][1, 1], "training lowers its loss"
    data = report_data(registries[0])
    assert [row["run_round"] for row in data["loss"]] == [1, 2, 3, 4, 5, 6]
    assert all(row["loss"] is not None for row in data["clients"])


def test_a_loss_that_is_told_takes_three_bytes_and_changes_nothing_else(
    tiny: Make, tmp_path: Path
) -> None:
    plain = run(tiny(rounds=2), tmp_path / "plain")
    telling = run(tiny(rounds=2, report_loss=True), tmp_path / "telling")
    updates = CLIENTS * 2 * 2
    assert sent(telling) - sent(plain) == updates * LOSS
    with Registry(plain) as one, Registry(telling) as other:
        for task in (1, 2):
            first, second = (found.coefficients(1, task) for found in (one, other))
            np.testing.assert_array_equal(first, second)
        assert round_losses(other, 1) == pytest.approx(round_losses(one, 1), rel=5e-3)
        assert round_losses(other, 1) != round_losses(one, 1), "rounded as on any other grid"


@pytest.mark.parametrize("hides", [{"secure_aggregation": True}, {"dp_epsilon": 50.0}])
def test_what_hides_clients_hides_their_losses(
    tiny: Make, tmp_path: Path, hides: dict[str, object]
) -> None:
    with pytest.raises(RecastError, match=r"--report-loss and --.*; leave one out") as refused:
        tiny(report_loss=True, **hides)
    assert "\n" not in str(refused.value)
    registry = run(tiny(tasks=tiny().tasks.split()[0], **hides), tmp_path / "run")
    with History(registry, read_only=True) as history:
        assert round_losses(history, 1) == {}
    assert report_data(registry)["loss"] == []


def test_a_loss_that_nobody_asked_for_is_refused() -> None:
    assert told_loss(pb.Update(loss=pack_loss(0.5)), asked=True) == 0.5
    assert told_loss(pb.Update(), asked=False) is None
    with pytest.raises(RefusedError, match="not asked for"):
        told_loss(pb.Update(loss=pack_loss(0.5)), asked=False)


def test_a_task_that_goes_back_forgets_the_losses_of_what_is_undone(
    tiny: Make, tmp_path: Path
) -> None:
    path = run(tiny(rounds=2), tmp_path / "run")
    with Registry(path) as registry:
        ask_rewind(registry, 1, "a", 1)
        assert rewind_asked(registry, 1) == [1]
        assert sorted(round_losses(registry, 1)) == [(1, 1), (2, 1), (2, 2)]
