"""What may befall the processes of a federation: no finished round is lost, and the run completes.

Faults that are not about processes are in ``tests/experiments/link``.
"""

from __future__ import annotations

import re
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from experiments.command import certs
from experiments.command.serve import LinkOptions, run_server
from experiments.measure.relay import free_port
from recast_core.errors import RecastError
from server.link.identity import node_id
from server.record.ledger import Ledger
from server.record.registry import Registry

if TYPE_CHECKING:
    from conftest import Process

    from .conftest import Site


# So many that the test sees the first long before the last is over.
ROUNDS = 30


def updates(folder: Path) -> dict[tuple[Any, ...], int]:
    """Bytes of updates in the ledger, by round and client."""
    with Registry(folder / "registry.sqlite") as registry:
        totals = Ledger(registry).totals(
            1, by=("round", "client", "direction", "kind", "layer", "task")
        )
    wanted = ("up", "coefficients", "payload")
    return {key[:2]: size for key, size in totals.items() if key[2:5] == wanted}


def test_a_server_killed_in_a_round_goes_on_with_the_same_clients_when_it_is_started_again(
    site: Site, start: Callable[..., Process]
) -> None:
    settings, port = site.settings(2, rounds=ROUNDS), free_port()
    certs.init(site.folder / "certs", ["localhost"], ["edge-0", "edge-1"], force=False)
    command = site.arguments(settings, 2, "--listen", f"127.0.0.1:{port}")
    server = start("server", *command)
    server.says("listening at")
    way = site.held(port)
    edges = [site.join(number, at, "--certs", "certs") for number, at in ((0, port), (1, way.port))]
    server.says("round 1: 2 updates")
    # With one client held, no round ends: the server dies in the middle of one.
    edges[1].process.send_signal(signal.SIGSTOP)
    server.process.kill()
    server.ends()
    with site.registry() as registry:
        done = registry.last_rounds(1)[1]
    edges[1].process.send_signal(signal.SIGCONT)
    way.delay(0)
    again = start("again", *command)
    assert [process.ends() for process in (again, *edges)] == [0, 0, 0]
    site.equals_alone(settings)
    assert 1 <= done < ROUNDS
    assert f"continuing run 1 after {done} finished rounds" in again.log.read_text()
    sizes = updates(site.run)
    assert set(sizes) == {
        (r, str(node_id(f"edge-{n}"))) for r in range(1, ROUNDS + 1) for n in (0, 1)
    }
    assert len(set(sizes.values())) == 1
    for edge in edges:
        text = edge.log.read_text()
        assert "no link to" in text
        assert text.count("INFO fetching") == 1, "the bank crosses to a client once"
        assert "Traceback" not in text


def test_a_frozen_client_is_named_and_the_others_go_on_until_it_is_back(site: Site) -> None:
    settings = site.settings(2, rounds=100, deadline=60.0, max_lag=10.0)
    server, port = site.serve(settings)
    way = site.held(port)
    edges = [site.join(0, way.port), site.join(1, port)]
    # By then it is known how long a round takes here, and who is late for that.
    server.says("round 3: 2 updates")
    edges[1].process.send_signal(signal.SIGSTOP)
    server.says(r"round \d+: 1 update,")
    edges[1].process.send_signal(signal.SIGCONT)
    server.says(r"(?s)round \d+: 1 update,.*round \d+: 2 updates")
    way.delay(0)
    assert [process.ends() for process in (server, *edges)] == [0, 0, 0]
    with site.registry() as registry:
        assert registry.last_rounds(1) == {1: 100}
        late = registry.refusals(1)
    assert {refusal.client for refusal in late} == {str(node_id("edge-1"))}
    # Late where it wakes before the next round has ended; by then it is asked for that one's.
    assert {refusal.reason for refusal in late} <= {"late", "silent", "stray"}
    text = server.log.read_text()
    assert re.search(r"edge-1.*(late|silent|stray)", text)
    assert "round 100: 2 updates" in text


@pytest.mark.skipif(shutil.which("faketime") is None, reason="needs faketime")
def test_clocks_that_are_years_apart_change_nothing_where_no_certificate_has_a_date(
    site: Site,
) -> None:
    settings = site.settings(1)
    server, port = site.serve(settings, 1)
    edge = site.join(0, port, before=("faketime", "-f", "-3000d"))
    assert [process.ends() for process in (server, edge)] == [0, 0]
    site.equals_alone(settings, 1)


def test_a_second_server_in_the_folder_of_one_that_waits_is_refused_before_it_listens(
    site: Site,
) -> None:
    settings = site.settings(1, rounds=1)
    first, port = site.serve(settings, 1)
    options = LinkOptions("127.0.0.1:0", 1, Path(), True, False, 1.0, 240.0, False)
    with pytest.raises(RecastError, match=f"process {first.process.pid}\\) is running in"):
        run_server(settings, options)
    edge = site.join(0, port)
    assert [process.ends() for process in (first, edge)] == [0, 0]
