"""Names of clients: from the grid where it knows them, else from what nodes say of themselves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from experiments.report.names import client_labels, transport_of
from server.exchange.naming import names_of
from server.record.registry import Registry
from server.record.rows import Refusal

LONG = 1271608011342012115


class Named:
    def names(self) -> dict[int, str]:
        return {LONG: "edge-1"}


def test_names_are_the_link_s_or_the_numbers_of_flower_s_nodes() -> None:
    grid: Any = Named()
    assert names_of(grid, {LONG: 3}) == {str(LONG): "edge-1"}
    nobody: Any = object()
    assert names_of(nobody, {LONG: 3, 7: 7, LONG + 1: LONG + 1}) == {str(LONG): "client 3"}


def test_a_registry_without_names_still_tells_its_clients_apart(tmp_path: Path) -> None:
    with Registry(tmp_path / "registry.sqlite") as registry:
        run = registry.start_run({}, bytes(32), {}, "")
        clients = ["7", str(LONG), str(LONG + 5), "<b>"]
        registry.record_traffic(run, [], [Refusal(c, None, 0, "x", "") for c in clients])
        assert client_labels(registry, run) == {
            "7": "client 7", "<b>": "<b>", str(LONG): "client 3", str(LONG + 5): "client 4",
        }  # fmt: skip
        registry.name_clients(run, {str(LONG): "edge-1"})
        registry.name_clients(run, {str(LONG): "edge-2"})
        assert client_labels(registry, run)[str(LONG)] == "edge-2"


def test_what_carried_a_run_is_read_from_its_command() -> None:
    assert transport_of("/x/recast serve --clients 2", {}) == "lean link"
    assert transport_of("recast serve --mqtt mqtts://broker/x", {}) == "MQTT"
    assert transport_of("recast serve --lorawan=mqtt://broker/x", {}) == "LoRaWAN"
    assert transport_of("recast simulate --engine=ray", {"clients": 2}) == "simulated, ray"
    assert transport_of("flower-superexec", {}) == "Flower"


def test_what_python_ran_is_no_run_of_flowers() -> None:
    """A script or a notebook that calls recast.simulate(), or recast.Federation().serve()."""
    for command in ("study.py", "/x/ipykernel_launcher.py -f kernel.json", ""):
        assert transport_of(command, {"clients": 2}) == "simulated"
        assert transport_of(command, {}) == "lean link"
