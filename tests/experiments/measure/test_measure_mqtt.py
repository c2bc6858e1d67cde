"""`recast measure` over MQTT: real `recast serve`, `recast join` and broker, behind relays."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import pytest

from experiments.command.simulate import simulate
from experiments.measure.mosquitto import program
from experiments.measure.run import Plan, measure
from experiments.session.simulation import Population
from recast_core.settings import Settings
from server.record.ledger import Ledger
from server.record.registry import Registry

pytestmark = pytest.mark.skipif(
    program() is None, reason="no mosquitto: `apt-get install mosquitto`"
)


def test_a_run_over_mqtt_with_tls_ends_in_the_bytes_of_the_folded_engine(
    tiny: Callable[..., Settings],
    coefficients: Callable[[Path], list[bytes]],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def settings(folder: str) -> Settings:
        return tiny(rounds=2, run_dir=str(tmp_path / folder), max_lag=0.0)

    plan = Plan(["recast"], ["mqtt"], clients=2, secure=True, idle=0)
    report = measure(settings("measured"), plan)
    capsys.readouterr()
    run = tmp_path / "measured" / "recast-mqtt" / "run"
    logging.getLogger("flwr").setLevel(logging.ERROR)
    simulate(settings("folded"), Population(2, "folded"))
    assert coefficients(tmp_path / "folded") == coefficients(run)

    # A look that comes late counts a few bytes with the phase before.
    each = [entry["wire_up"] + entry["wire_down"] for entry in report["rounds"]]
    assert 0 < sum(each) / len(each) <= 260
    with Registry(run / "registry.sqlite") as registry:
        totals = Ledger(registry).totals(1, by=("kind", "layer"))
    (bank,) = run.glob("bank-*.safetensors")
    assert totals["bank", "payload"] == 2 * bank.stat().st_size, "to each client once"
