"""A server that died before it could tell its clients that the run is finished tells them later."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from experiments.command.serve import LinkOptions, for_clients, serve
from experiments.measure.relay import free_port
from recast_core.settings import Settings
from server.app import Conditions, ended_untold, run_federation
from server.exchange.observer import LogObserver
from server.link import LinkGrid
from server.record.farewell import owed_farewell
from server.record.registry import Registry
from tests.experiments.ends import LONG

if TYPE_CHECKING:
    from conftest import Federation


class Killed(BaseException):
    """Stands for the end of the process."""


def test_killed_after_the_end_was_recorded_the_next_server_says_finished_and_learns_nothing(
    federation: Callable[..., Federation],
    monkeypatch: pytest.MonkeyPatch,
    tiny: Callable[..., Settings],
    deal: Callable[[Settings, int, Path], list[Path]],
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    folder = tmp_path / "run"
    settings = tiny(tasks=tiny().tasks.split()[0], run_dir=str(folder))
    (data,) = deal(settings, 1, tmp_path / "data")
    here = federation(tls=False, settings=for_clients(settings))
    relay = here.relay()
    one = here.take_part("one", data, 0, port=relay.port)
    here.grid.wait_for_clients(1)

    def dies(grid: LinkGrid, *, finished: bool) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(LinkGrid, "end", dies)
        with pytest.raises(Killed):
            run_federation(
                here.grid, settings, folder, LogObserver(), conditions=Conditions(patience=20)
            )
    here.grid.end(finished=False)
    assert owed_farewell(folder) == 1
    assert one.ended is None
    port = free_port()
    relay.to = port
    options = LinkOptions(
        listen=f"127.0.0.1:{port}", clients=1, certs=tmp_path, insecure=True, force_insecure=False,
        grace=20.0, keepalive=240.0, json_log=False,
    )  # fmt: skip
    report = serve(settings, options)
    assert one.wait() == "finished"
    assert [task["name"] for task in report["tasks"]] == ["a"]
    assert "registry" in capsys.readouterr().out
    with Registry(folder / "registry.sqlite") as registry:
        assert [run.status for run in registry.runs()] == ["finished"]
    # Told: the same command now learns again, as before.
    assert ended_untold(settings, folder) is None


def test_who_joins_while_the_others_are_told_is_told_too(
    federation: Callable[..., Federation],
) -> None:
    here = federation(tls=False)
    here.join("one")
    here.grid.wait_for_clients(1)
    done = threading.Thread(target=lambda: here.grid.bid_farewell(2, LONG), daemon=True)
    done.start()
    two = here.join("two")
    assert two.wait() == "finished"
    done.join(LONG)
    assert not done.is_alive()
