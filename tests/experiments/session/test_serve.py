"""`recast.Federation(...).serve`: a real client that joins, and the run as Python has it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import recast
from experiments.measure.relay import free_port
from recast_core.settings import Settings

if TYPE_CHECKING:
    from conftest import Process


def test_a_server_in_python_has_clients_that_join(
    tiny: Callable[..., Settings],
    start: Callable[..., Process],
    deal: Callable[..., Any],
    tmp_path: Path,
) -> None:
    settings = tiny(rounds=2, tasks=tiny().tasks.split()[0], run_dir=str(tmp_path / "run"))
    settings = replace(settings, report_loss=True)
    deal(settings, 1, tmp_path / "data")
    address = f"127.0.0.1:{free_port()}"
    client = start(
        "client", "join", address, "--insecure", "--name", "edge-0", "--data", "data/0",
        "--cache", "cache", "--device", "cpu",
    )  # fmt: skip
    heard, events = list[tuple[str, int]](), list[recast.RoundFinished]()
    values = {field.name: getattr(settings, field.name) for field in fields(settings)}
    federation = recast.Federation(
        **values,
        on_round=lambda event: (heard.append((event.task, event.round)), events.append(event)),
    )
    run = federation.serve(address, clients=1, insecure=True)
    assert client.ends() == 0
    assert (run.status, heard) == ("finished", [("a", 1), ("a", 2)])
    assert list(run.history["updates"]) == [1, 1]
    losses = [event.loss for event in events]
    assert losses == list(run.history["loss"])
    assert [event.losses for event in events] == [{"edge-0": loss} for loss in losses]
    assert all(client.says(f"a, round {n}: training loss ") for n in (1, 2))
    assert set(run.ledger["layer"]) >= {"payload", "message"}
