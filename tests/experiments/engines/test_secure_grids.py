"""Hidden sums on simulated clients: the arithmetic is done, on every engine to the same bits."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from client.app import app
from experiments.engines.folded import FoldedGrid
from experiments.engines.local import LocalGrid
from experiments.engines.sequential import SequentialGrid
from experiments.report.data import report_data
from experiments.report.privacy import privacy_line
from recast_core.errors import RecastError
from recast_core.settings import Settings
from server.app import run_federation
from server.exchange.observer import LogObserver
from server.flower import server_identity
from server.record.ledger import Ledger
from server.record.registry import Registry

CLIENTS, ROUNDS = 4, 2
Make = Callable[..., Settings]


def learned(grid: LocalGrid, settings: Settings, folder: Path) -> tuple[np.ndarray, dict]:
    with server_identity():
        run_federation(grid, settings, folder, LogObserver())
    with Registry(folder / "registry.sqlite") as registry:
        vectors = [registry.coefficients(1, t, r) for t in (1, 2) for r in range(1, ROUNDS + 1)]
        totals = Ledger(registry).totals(1, by=("client", "round", "direction", "kind", "layer"))
        assert Ledger(registry).refusals(1) == {}
        assert [r.clients for r in registry.rounds(1, 2)] == [CLIENTS] * ROUNDS
    return np.stack(vectors), totals


def learned_alike(settings: Settings, folder: Path) -> np.ndarray:
    with server_identity():
        alone = SequentialGrid(CLIENTS, app, settings, folder / "caches")
        folded = FoldedGrid(CLIENTS, settings)
    one, bytes_of_one = learned(alone, settings, folder / "alone")
    other, bytes_of_other = learned(folded, settings, folder / "folded")
    assert one.tobytes() == other.tobytes()
    assert bytes_of_one == bytes_of_other
    return one


def test_every_engine_opens_the_same_sums_at_the_same_bytes_and_the_mean_is_the_plain_one(
    tiny: Make, tmp_path: Path
) -> None:
    hidden = tiny(rounds=ROUNDS, batch=8, secure_aggregation=True)
    one = learned_alike(hidden, tmp_path)
    hiding = report_data(tmp_path / "folded" / "registry.sqlite", None)["tasks"]
    with Registry(tmp_path / "folded" / "registry.sqlite") as registry:
        sealed = Ledger(registry).longest(1, kind="shares", direction="up")
    assert all(task["update_bytes"] > sealed[task["name"]] > 0 for task in hiding)
    openly = tiny(rounds=ROUNDS, batch=8, bits=32, aggregation="mean")
    plain, _ = learned(FoldedGrid(CLIENTS, openly), openly, tmp_path / "openly")
    assert np.abs(plain - plain[0]).max() > 0.01
    np.testing.assert_allclose(one, plain, rtol=0, atol=2e-3)


@pytest.mark.parametrize("kind", ["central", "distributed"])
def test_every_engine_spends_the_same_budget_on_the_same_noisy_sums(
    tiny: Make, tmp_path: Path, kind: str
) -> None:
    settings = tiny(
        rounds=ROUNDS, batch=8, secure_aggregation=True, dp_epsilon=20.0, dp=kind, clip="auto"
    )
    learned_alike(settings, tmp_path)
    told = report_data(tmp_path / "folded" / "registry.sqlite")["privacy"]
    assert told == report_data(tmp_path / "alone" / "registry.sqlite")["privacy"]
    assert told["kind"] == kind
    assert 0.97 * 20 < told["epsilon"] / (0.95 if kind == "distributed" else 1) <= 20
    assert len(told["rounds"]) == 2 * ROUNDS
    assert f"privacy of a client ({kind})" in privacy_line(told)


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"error_feedback": True}, "error-feedback"),
        ({"head": "ridge"}, "would travel openly"),
        ({"clients_per_round": 2}, "at least 3"),
        ({"dp_epsilon": 1.0, "dp": "local"}, "use --dp distributed"),
        ({"dp_epsilon": 1.0, "dp_sampling": "poisson"}, "leave --dp-sampling out"),
        *(
            ({"aggregation": rule, **budget}, "use mean|only of a mean")
            for rule in ("median", "trimmed", "geometric-median", "krum", "multi-krum")
            for budget in ({}, {"dp_epsilon": 1.0}, {"dp_epsilon": 1.0, "dp": "distributed"})
        ),
    ],
)
def test_what_needs_single_updates_is_refused_in_one_line(
    tiny: Make, changed: dict[str, object], why: str
) -> None:
    with pytest.raises(RecastError, match=why) as refused:
        tiny(secure_aggregation=True, **changed)
    assert "\n" not in str(refused.value)


def test_too_few_clients_for_a_sum_are_counted_and_not_said_to_lack_images(
    tiny: Make, tmp_path: Path
) -> None:
    settings = tiny(rounds=1, secure_aggregation=True)
    with server_identity(), pytest.raises(RecastError, match="at least 3") as refused:
        run_federation(FoldedGrid(2, settings), settings, tmp_path, LogObserver())
    assert str(refused.value).startswith("2 clients can learn task ")
    assert "\n" not in str(refused.value)
