"""What may befall the processes of a federation: no finished round is lost, and the run completes.

Faults that are not about processes are in ``tests/experiments/link``.
"""

from __future__ import annotations

import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from experiments.command import certs
from experiments.measure.relay import free_port
from recast_core.settings import Settings
from server.link.identity import node_id
from server.record.ledger import Ledger
from server.record.registry import Registry

if TYPE_CHECKING:
    from conftest import Process


def client(number: int, port: int, *more: str) -> list[str]:
    return [
        "join", f"localhost:{port}", "--name", f"edge-{number}", "--number", str(number),
        "--data", f"data/{number}", "--cache", f"cache/{number}", "--device", "cpu", *more,
    ]  # fmt: skip


def updates(folder: Path) -> dict[tuple[Any, ...], int]:
    """Bytes of updates in the ledger, by round and client."""
    with Registry(folder / "registry.sqlite") as registry:
        totals = Ledger(registry).totals(
            1, by=("round", "client", "direction", "kind", "layer", "task")
        )
    wanted = ("up", "coefficients", "payload")
    return {key[:2]: size for key, size in totals.items() if key[2:5] == wanted}


def test_a_server_killed_in_a_round_goes_on_with_the_same_clients_when_it_is_started_again(
    tiny: Callable[..., Settings],
    command_line: Callable[[Settings], list[str]],
    start: Callable[..., Process],
    deal: Callable[..., None],
    coefficients: Callable[..., list[Any]],
    alone: Callable[..., Path],
    tmp_path: Path,
) -> None:
    settings = tiny(rounds=4, tasks=tiny().tasks.split()[0], run_dir=str(tmp_path / "run"))
    deal(settings, 2, tmp_path / "data")
    certs.init(tmp_path / "certs", ["localhost"], ["edge-0", "edge-1"], force=False)
    port = free_port()
    command = ["serve", "--listen", f"127.0.0.1:{port}", "--clients", "2", *command_line(settings)]
    server = start("server", *command)
    server.says("listening at")
    edges = [start(f"edge-{number}", *client(number, port)) for number in (0, 1)]
    server.says("round 1: 2 updates")
    # With one client held, no round ends: the server dies in the middle of one.
    edges[1].process.send_signal(signal.SIGSTOP)
    server.process.kill()
    server.ends()
    with Registry(tmp_path / "run" / "registry.sqlite") as registry:
        done = registry.last_rounds(1)[1]
    edges[1].process.send_signal(signal.SIGCONT)
    reference = alone(settings, 2)
    again = start("again", *command)
    assert [process.ends() for process in (again, *edges)] == [0, 0, 0]
    for here, there in zip(coefficients(tmp_path / "run"), coefficients(reference), strict=True):
        np.testing.assert_allclose(here, there, rtol=0, atol=1e-5)
    assert 1 <= done < 4
    assert f"continuing run 1 after {done} finished rounds" in again.log.read_text()
    sizes = updates(tmp_path / "run")
    assert set(sizes) == {(r, str(node_id(f"edge-{n}"))) for r in range(1, 5) for n in (0, 1)}
    assert len(set(sizes.values())) == 1
    for edge in edges:
        text = edge.log.read_text()
        assert "no link to" in text
        assert text.count("INFO fetching") == 1, "the bank crosses to a client once"
        assert "Traceback" not in text


def test_a_frozen_client_is_late_and_the_others_go_on_without_it(
    tiny: Callable[..., Settings],
    command_line: Callable[[Settings], list[str]],
    start: Callable[..., Process],
    deal: Callable[..., None],
    tmp_path: Path,
) -> None:
    settings = tiny(
        rounds=6, tasks=tiny().tasks.split()[0], deadline=4.0, run_dir=str(tmp_path / "run")
    )
    deal(settings, 2, tmp_path / "data")
    server = start(
        "server", "serve", "--listen", "127.0.0.1:0", "--insecure", "--clients", "2",
        *command_line(settings),
    )  # fmt: skip
    port = int(server.says(r"listening at 127\.0\.0\.1:(\d+)")[1])
    edges = [start(f"edge-{n}", *client(n, port, "--insecure")) for n in (0, 1)]
    server.says("round 1: 2 updates")
    edges[1].process.send_signal(signal.SIGSTOP)
    server.says(r"round \d: 1 updates")
    edges[1].process.send_signal(signal.SIGCONT)
    assert [process.ends() for process in (server, *edges)] == [0, 0, 0]
    with Registry(tmp_path / "run" / "registry.sqlite") as registry:
        assert registry.last_rounds(1) == {1: 6}
        late = registry.refusals(1)
    assert {(refusal.client, refusal.reason) for refusal in late} == {
        (str(node_id("edge-1")), "late")
    }
    assert f"client {node_id('edge-1')} refused (late)" in server.log.read_text()
    assert "round 6: 2 updates" in server.log.read_text()


@pytest.mark.skipif(shutil.which("faketime") is None, reason="needs faketime")
def test_clocks_that_are_years_apart_change_nothing_where_no_certificate_has_a_date(
    tiny: Callable[..., Settings],
    command_line: Callable[[Settings], list[str]],
    start: Callable[..., Process],
    deal: Callable[..., None],
    coefficients: Callable[..., list[Any]],
    alone: Callable[..., Path],
    tmp_path: Path,
) -> None:
    settings = tiny(tasks=tiny().tasks.split()[0], run_dir=str(tmp_path / "run"))
    deal(settings, 1, tmp_path / "data")
    server = start(
        "server", "serve", "--listen", "127.0.0.1:0", "--insecure", "--clients", "1",
        *command_line(settings),
    )  # fmt: skip
    port = int(server.says(r"listening at 127\.0\.0\.1:(\d+)")[1])
    edge = start("edge", *client(0, port, "--insecure"), before=("faketime", "-f", "-3000d"))
    assert [process.ends() for process in (server, edge)] == [0, 0]
    reference = alone(settings, 1)
    for here, there in zip(coefficients(tmp_path / "run"), coefficients(reference), strict=True):
        np.testing.assert_allclose(here, there, rtol=0, atol=1e-5)
