"""The port of the figures for Prometheus: whom it answers, and what is no port."""

from __future__ import annotations

import http.client

import pytest

from experiments.command.metrics import serve_metrics
from experiments.measure.relay import free_port
from recast_core.errors import RecastError
from server.link.sessions import Sessions


def asked(port: int, host: str | None) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    connection.putrequest("GET", "/metrics", skip_host=True)
    if host is not None:
        connection.putheader("Host", host)
    connection.endheaders()
    answer = connection.getresponse()
    content = answer.status, answer.read()
    connection.close()
    return content


def test_figures_are_for_those_who_ask_for_this_machine_by_a_name_of_its_own() -> None:
    port = free_port()
    with serve_metrics(port, Sessions(1, "{}")):
        for host in (f"127.0.0.1:{port}", f"localhost:{port}", "LocalHost", f"[::1]:{port}"):
            status, content = asked(port, host)
            assert (status, b"recast_clients_known 0.0" in content) == (200, True), host
        strangers = (f"rebound.example:{port}", "127.0.0.1.example", "localhost:1:2", "", None)
        for host in strangers:
            status, content = asked(port, host)
            assert (status, b"recast" in content) == (400, False), host


@pytest.mark.parametrize("port", [-1, 65536])
def test_what_is_no_port_is_refused_in_one_line(port: int) -> None:
    remedy = f"--metrics {port}: .*; choose a free port"
    with pytest.raises(RecastError, match=remedy), serve_metrics(port, Sessions(1, "{}")):
        pass
