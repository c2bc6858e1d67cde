"""`recast measure` over the lean link: real `recast serve` and `recast join`, behind relays."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from experiments.command.simulate import simulate
from experiments.measure.link import LinkDeployment
from experiments.measure.relay import Relays
from experiments.measure.run import Plan, measure
from experiments.measure.table import ratios
from experiments.session.simulation import Population
from recast_core.settings import Settings
from server.record.ledger import Ledger
from server.record.registry import Registry

ROUNDS = 2


def test_a_measured_run_over_tls_ends_in_the_bytes_of_the_engines(
    tiny: Callable[..., Settings],
    coefficients: Callable[[Path], list[bytes]],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def settings(folder: str) -> Settings:
        return tiny(rounds=ROUNDS, run_dir=str(tmp_path / folder), max_lag=0.0)

    report = measure(
        settings("measured"), Plan(["recast"], ["link"], clients=2, secure=True, idle=0)
    )
    capsys.readouterr()
    run = tmp_path / "measured" / "recast-link" / "run"
    logging.getLogger("flwr").setLevel(logging.ERROR)
    for engine in ("sequential", "folded"):
        simulate(settings(engine), Population(2, engine))
        assert coefficients(tmp_path / engine) == coefficients(run), engine

    what = [(entry["task"], entry["round"], entry["what"]) for entry in report["rounds"]]
    assert what[:3] == [("a", 1, "training"), ("a", 2, "training"), ("a", 2, "evaluation")]
    for entry in report["rounds"]:
        assert 0 < entry["wire_up"] + entry["wire_down"] <= 260
    join, greeting = report["connection"]
    assert (join["what"], greeting["what"]) == ("join", "greeting and bank")
    (bank,) = run.glob("bank-*.safetensors")
    size = bank.stat().st_size
    assert size < greeting["wire_down"] < size + 5000
    with Registry(run / "registry.sqlite") as registry:
        totals = Ledger(registry).totals(1, by=("client", "direction", "layer"))
    for client in {key[0] for key in totals}:
        assert totals[client, "up", "wire"] > totals[client, "up", "message"]


def test_a_client_that_is_cut_off_comes_back_before_the_run_begins(
    tiny: Callable[..., Settings], coefficients: Callable[[Path], list[bytes]], tmp_path: Path
) -> None:
    with Relays() as relays:
        deployment = LinkDeployment(tmp_path / "link", relays, 1)
        try:
            deployment.start(tiny(tasks=tiny().tasks.split()[0], run_dir=str(tmp_path / "run")))
            deployment.join(0)
            before = deployment.relays[0].counted()
            assert deployment.running()
            assert not (tmp_path / "run" / "registry.sqlite").exists(), "the run waits for begin"
            deployment.stop_client(0, kill=True)
            deployment.join(0)
            assert (deployment.relays[0].counted() - before).connections == 1
            deployment.begin()
            while deployment.running():
                time.sleep(0.05)
        finally:
            deployment.stop()
    assert len(coefficients(tmp_path / "run")) == 1


def test_the_ratio_is_of_what_ran_over_both() -> None:
    def entry(transport: str, round_: int, up: int, down: int) -> dict[str, object]:
        about = {"method": "recast", "transport": transport, "task": "a", "round": round_}
        return about | {"what": "training", "wire_up": up, "wire_down": down}

    found = ratios(
        [entry("flower", 1, 900, 300), entry("link", 1, 90, 110), entry("link", 2, 1, 1)]
    )
    assert found == [
        {"method": "recast", "task": "a", "round": 1, "what": "training", "up": 10.0,
         "down": pytest.approx(300 / 110), "both": 6.0}
    ]  # fmt: skip
