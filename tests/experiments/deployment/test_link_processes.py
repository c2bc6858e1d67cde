"""``recast serve`` and ``recast join`` as processes, with one of them killed in the middle."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from experiments.command import certs
from recast_core.settings import Settings
from server.record.ledger import Ledger
from server.record.registry import Registry

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
    victim = site.join(1, site.held(port).port, *tls)
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


def test_a_kept_head_and_drifting_images_end_as_on_the_engines(
    tiny: Callable[..., Settings],
    command_line: Callable[[Settings], list[str]],
    start: Callable[..., Process],
    deal: Callable[[Settings, int, Path], list[Path]],
    coefficients: Callable[..., list[Any]],
    alone: Callable[..., Path],
    tmp_path: Path,
) -> None:
    """Of the head not a byte travels for the later task, nor do its clients' images lie still."""
    (data, _) = (task.partition("=")[2].removesuffix("+inverted") for task in tiny().tasks.split())
    text = f"a={data} b={data}+lowlight:{{}}"
    settings = tiny(
        rounds=2,
        tasks=text.format("1-5"),
        head="task:a",
        run_dir=str(tmp_path / "run"),
        max_lag=0.0,
    )
    begin = deal(tiny(tasks=text.format(1)), 2, tmp_path / "data")
    for now, later in zip(begin, deal(tiny(tasks=text.format(5)), 2, tmp_path / "x"), strict=True):
        (later / "b.npz").rename(now / "b@2.npz")
    server = start(
        "server", "serve", "--listen", "127.0.0.1:0", "--insecure", "--clients", "2",
        *command_line(settings),
    )  # fmt: skip
    port = server.says(r"listening at 127\.0\.0\.1:(\d+)\D")[1]
    edges = [
        start(
            f"edge-{number}", "join", f"localhost:{port}", "--insecure", "--name", f"e{number}",
            "--number", str(number), "--data", f"data/{number}", "--cache", f"cache/{number}",
            "--device", "cpu",
        )
        for number in range(2)
    ]  # fmt: skip
    reference = alone(settings, 2)
    assert [process.ends() for process in (server, *edges)] == [0, 0, 0]
    for here, there in zip(coefficients(tmp_path / "run"), coefficients(reference), strict=True):
        np.testing.assert_allclose(here, there, rtol=0, atol=1e-5)
    with Registry(tmp_path / "run" / "registry.sqlite") as registry:
        heads = Ledger(registry).totals(1, by=("task", "kind", "layer"))
        assert registry.head(1, 1) == registry.head(1, 2) is not None
    assert ("a", "head", "message") in heads
    assert ("b", "head", "message") not in heads
    assert [*(tmp_path / "cache" / "0").glob("head-*")]


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
    port = server.says(r"listening at 127\.0\.0\.1:(\d+)\D")[1]
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
