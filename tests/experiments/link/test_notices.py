"""What the server decides about a client is told back, in the client's own log."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from experiments.command.serve import for_clients
from recast_core.errors import RecastError
from recast_core.settings import Settings
from recast_core.task_spec import parse_tasks
from server.app import Conditions, run_federation
from server.exchange.observer import LogObserver
from server.link.identity import node_id
from server.record.ledger import Ledger
from server.record.registry import Registry

if TYPE_CHECKING:
    from conftest import Federation

Make = Callable[..., Settings]


def own_data(settings: Settings, folder: Path, name: str, classes: list[str]) -> Path:
    """A data folder with the task's images under another name, or of other classes."""
    (task,) = parse_tasks(settings.tasks)
    arrays = dict(np.load(task.data.removeprefix("npz:")))
    folder.mkdir()
    np.savez(folder / f"{name}.npz", **(arrays | {"classes": np.array(classes)}))
    return folder


def test_whoever_is_left_out_reads_why_in_its_own_log_and_it_is_counted(
    federation: Callable[..., Federation], tiny: Make, tmp_path: Path,
    wait_until: Callable[..., None], caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    settings = tiny(tasks=tiny().tasks.split()[0], run_dir=str(tmp_path / "run"))
    here = federation(tls=False, settings=for_clients(settings))
    right = ["c0", "c1", "c2"]
    for name, file, classes in (
        ("one", "a", right), ("two", "aa", right), ("three", "a", ["c0", "C1", "c2"]),
    ):  # fmt: skip
        data = own_data(settings, tmp_path / f"data-{name}", file, classes)
        here.take_part(name, data, len(name))
    here.grid.wait_for_clients(3)
    with caplog.at_level(logging.INFO):
        run_federation(
            here.grid, settings, tmp_path / "run", LogObserver(),
            conditions=Conditions(patience=0.0, classes_of=lambda source: tuple(right)),
        )  # fmt: skip

        def said() -> list[str]:
            messages = [record.getMessage() for record in caplog.records]
            return [one for one in messages if one.startswith("the server says")]

        wait_until(lambda: len(said()) >= 2)
    assert sorted(said()) == [
        "the server says: task a goes on without this client (classes): class 'C1' is 'c1' in the "
        "task: use one spelling",
        "the server says: task a goes on without this client (no-data): no a.npz and no a/ with "
        "images in its data folder",
    ]
    with Registry(tmp_path / "run" / "registry.sqlite") as registry:
        left_out = {(r.client, r.reason) for r in registry.refusals(1)}
        totals = Ledger(registry).totals(1, by=("client", "kind", "direction", "layer"))
    assert left_out == {(str(node_id("two")), "no-data"), (str(node_id("three")), "classes")}
    down = {
        name: totals[str(node_id(name)), "control", "down", "message"] for name in ("one", "two")
    }
    assert down["two"] > down["one"] + 90


def test_clients_of_a_run_that_fails_are_told_why_and_wait_for_another(
    federation: Callable[..., Federation], tiny: Make, tmp_path: Path,
    wait_until: Callable[..., None], caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    settings = tiny(tasks=tiny().tasks.split()[0], run_dir=str(tmp_path / "run"))
    here = federation(tls=False, settings=for_clients(settings))
    (tmp_path / "empty").mkdir()
    client = here.take_part("one", tmp_path / "empty", 0)
    here.grid.wait_for_clients(1)
    with (
        caplog.at_level(logging.INFO),
        pytest.raises(RecastError, match=r"task 'a' \(1 takes no part, the last said: no-data"),
    ):
        run_federation(
            here.grid, settings, tmp_path / "run", LogObserver(),
            conditions=Conditions(patience=0.5),
        )  # fmt: skip
    wait_until(lambda: "the server says: the run has failed: no client has two" in caplog.text)
    assert "nobody here can learn task a yet: waiting" in caplog.text
    assert client.ended is None
    shutil.rmtree(tmp_path / "empty")


def test_a_notice_to_a_client_that_is_away_waits_for_it_and_the_latest_are_kept(
    federation: Callable[..., Federation], wait_until: Callable[..., None],
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    here = federation(tls=False)
    assert here.grid.notify(node_id("one"), "nobody") == 0
    relay = here.relay()
    here.join("one", port=relay.port)
    here.grid.wait_for_clients(1)
    relay.blocked = True
    relay.cut()
    session = here.grid.sessions.get("one")
    assert session is not None
    wait_until(lambda: session.stream is None)
    with caplog.at_level(logging.WARNING):
        assert all(here.grid.notify(node_id("one"), f"line {n}\x1b[2J") for n in range(20))
        relay.blocked = False
        wait_until(lambda: "the server says: line 19" in caplog.text)
    said = [r.getMessage() for r in caplog.records if "the server says" in r.getMessage()]
    assert said == [f"the server says: line {n}" for n in range(12, 20)]
