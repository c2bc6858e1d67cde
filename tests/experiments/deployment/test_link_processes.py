"""``recast serve`` and ``recast join`` as processes, with one of them killed in the middle."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from experiments.command import certs
from recast_core.settings import Settings

if TYPE_CHECKING:
    from conftest import Process

    from .conftest import Site


def test_a_run_over_tls_with_a_client_killed_in_training_equals_the_sequential_engine(
    site: Site,
) -> None:
    settings = site.settings(2, rounds=2)
    certs.init(site.folder / "certs", ["localhost"], ["edge-0", "edge-1"], force=False)
    tls = "--certs", "certs"
    server, port = site.serve(settings, 2, *tls)
    edge = site.join(0, port, *tls)
    victim = site.join(1, port, *tls)
    victim.says("INFO train")
    victim.process.send_signal(signal.SIGKILL)
    victim.ends()
    again = site.join(1, port, *tls, log="edge-1-again")
    assert [process.ends() for process in (server, edge, again)] == [0, 0, 0]
    site.equals_alone(settings)
    assert "fetching" in victim.log.read_text()
    assert "fetching" not in again.log.read_text(), "the bank crosses to a client once"
    assert "updates" in server.log.read_text()
    assert "no answer in time" not in server.log.read_text()


def test_a_signal_ends_either_side_cleanly(
    tiny: Callable[..., Settings],
    command_line: Callable[[Settings], list[str]],
    start: Callable[..., Process],
    tmp_path: Path,
) -> None:
    (tmp_path / "data").mkdir()
    server = start(
        "server", "serve", "--listen", "127.0.0.1:0", "--insecure", "--json-log",
        *command_line(tiny(run_dir=str(tmp_path / "run"))),
    )  # fmt: skip
    port = server.says(r"listening at 127\.0\.0\.1:(\d+)")[1]
    address = f"localhost:{port}"
    client = start("client", "join", address, "--insecure", "--name", "edge", "--data", "data")
    server.says("client edge joined")
    client.process.terminate()
    assert client.ends() == 0
    server.says("client edge: stream ended")
    server.process.terminate()
    assert server.ends() == 130
    for process in (client, server):
        assert "Traceback" not in process.log.read_text()


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["serve", "--insecure", "--listen", "0.0.0.0:9441"], "--force-insecure"),
        (["serve", "--certs", "nowhere"], "recast certs init"),
        (["join", "a:1", "--insecure", "--name", "x", "--data", "."], "--force-insecure"),
        (["join", "a:1", "--name", "x", "--data", "."], "recast certs add"),
    ],
)
def test_what_cannot_work_is_refused_in_one_line(
    recast: Callable[..., Any], arguments: list[str], complaint: str, tmp_path: Path
) -> None:
    done = recast(*arguments, folder=tmp_path)
    assert done.returncode == 2
    assert complaint in done.stderr
    assert done.stderr.count("\n") == 1
