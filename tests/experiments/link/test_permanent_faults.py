"""Faults that no waiting mends end the client with cause and remedy; others it waits out."""

from __future__ import annotations

import asyncio
import logging
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import grpc
import grpc.aio
import pytest

from client.link import ClientKeys, Endpoint
from client.link.complaints import PATIENCE, Complaints
from client.link.diagnosis import proxy_in_force
from experiments.command import certs
from experiments.command.cli import main
from protos.link_address import Address
from recast_core.errors import RecastError

if TYPE_CHECKING:
    from conftest import Client, Federation

NOWHERE = "http://user:secret@127.0.0.1:9"


def ending(client: Client) -> str:
    error = client.wait()
    assert isinstance(error, RecastError), error
    assert "\n" not in str(error)
    return str(error)


def test_a_link_that_worked_says_without_a_look_that_nobody_listens(
    caplog: pytest.LogCaptureFixture,
) -> None:
    complaints = Complaints(Endpoint("127.0.0.1:9", None), "one")
    complaints.connected()
    details = "failed to connect to all addresses; last error: UNKNOWN: Connection refused"
    nothing = grpc.aio.Metadata()
    code = grpc.StatusCode.UNAVAILABLE
    asyncio.run(complaints.about(grpc.aio.AioRpcError(code, nothing, nothing, details)))
    assert "no link to 127.0.0.1:9: nobody listens there; trying again" in caplog.messages


def test_a_server_with_another_authority_is_not_tried_again(
    federation: Callable[..., Federation], tmp_path: Path
) -> None:
    here = federation()
    certs.init(tmp_path / "other", ["localhost"], ["one"], force=False)
    here.certs = tmp_path / "other"
    said = ending(here.join("one"))
    assert "not signed by the authority in ca.pem" in said
    assert "copy the federation's own ca.pem" in said


def test_a_certificate_for_another_host_names_the_hosts_that_it_is_for(
    federation: Callable[..., Federation], tmp_path: Path
) -> None:
    certs.init(tmp_path / "certs", ["fl.example", "192.0.2.7"], ["one"], force=False)
    here = federation(made=True)
    said = ending(here.join("one"))
    assert "is not for localhost but for fl.example, 192.0.2.7: join by one of these" in said


@pytest.mark.parametrize("tls", [True, False])
def test_one_end_with_tls_and_one_without_is_told_which(
    federation: Callable[..., Federation], tmp_path: Path, tls: bool
) -> None:
    here = federation(tls)
    if not tls:
        certs.init(here.certs, ["localhost"], ["one"], force=False)
    here.tls = not tls
    said = ending(here.join("one"))
    if tls:
        assert "the server speaks TLS: join with a certificate (--certs)" in said
    else:
        assert "does not speak TLS" in said


def test_what_has_worked_is_tried_some_times_more(
    federation: Callable[..., Federation], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    here = federation()
    relay = here.relay()
    one = here.join("one", port=relay.port)
    here.grid.wait_for_clients(1)
    certs.init(tmp_path / "other", ["localhost"], [], force=False)
    here.certs = tmp_path / "other"
    with caplog.at_level(logging.WARNING, "recast.link"):
        here.restart()
        relay.to = here.port
        assert "not signed by the authority in ca.pem" in ending(one)
    tries = [r for r in caplog.records if "not signed by the authority" in r.getMessage()]
    assert len(tries) == PATIENCE - 1


def test_nobody_there_and_no_such_host_are_named_and_waited_for(
    federation: Callable[..., Federation], caplog: pytest.LogCaptureFixture,
    wait_until: Callable[..., None], monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    here = federation(tls=False)

    def unknown(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    with socket.socket() as deaf, caplog.at_level(logging.WARNING, "recast.link"):
        deaf.bind(("127.0.0.1", 0))  # so that nobody else comes to listen there
        one = here.join("one", port=deaf.getsockname()[1])
        wait_until(lambda: "nobody listens there; trying again" in caplog.text)
        assert one.ended is None
        one.stop()
    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    fault = Endpoint("nosuch.invalid:9441", None).diagnose()
    assert fault is not None
    assert fault.text.startswith("no address is known of nosuch.invalid")
    assert not fault.permanent


def test_loopback_goes_through_no_proxy_and_the_rest_names_the_variable(
    federation: Callable[..., Federation], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("grpc_proxy", "https_proxy", "http_proxy", "no_proxy", "no_grpc_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("https_proxy", NOWHERE)
    here = federation()
    here.join("one")
    here.grid.wait_for_clients(1)
    assert here.ask(b"abc") == [b"cba"]
    fault = Endpoint("fl.example:9441", None).diagnose()
    assert fault is not None
    assert "https_proxy sends this through the proxy 127.0.0.1" in fault.text
    assert "no_proxy" in fault.text
    assert "secret" not in fault.text
    away = Address("fl.example", 1)
    for exempt, found in (("other.org, .example", None), ("*", None), ("other", "https_proxy")):
        monkeypatch.setenv("no_proxy", exempt)
        assert proxy_in_force(away) == found


@pytest.mark.parametrize(
    ("host", "environment", "found"),
    [
        # Each was tried with a listening proxy and gRPC 1.85.
        ("10.1.2.3", {"http_proxy": NOWHERE, "no_proxy": "10.0.0.0/8"}, None),
        ("10.1.2.3", {"http_proxy": NOWHERE, "no_proxy": "10.1.2.3/32"}, None),
        ("10.1.2.3", {"http_proxy": NOWHERE, "no_proxy": "10.1."}, "http_proxy"),
        ("2001:db8::1", {"http_proxy": NOWHERE, "no_proxy": "2001:db8::/32"}, None),
        ("fl.example", {"http_proxy": NOWHERE, "no_proxy": ".fl.example"}, None),
        ("a.fl.example", {"http_proxy": NOWHERE, "no_proxy": "FL.example"}, None),
        ("notfl.example", {"http_proxy": NOWHERE, "no_proxy": "fl.example"}, "http_proxy"),
        ("fl.example", {"grpc_proxy": "", "http_proxy": NOWHERE}, None),
        ("fl.example", {"http_proxy": "127.0.0.1:3128"}, None),
        ("fl.example", {"http_proxy": "https://127.0.0.1:3128"}, None),
        (
            "fl.example",
            {"http_proxy": NOWHERE, "no_grpc_proxy": "", "no_proxy": "fl.example"},
            "http_proxy",
        ),
        ("0.0.0.0", {"http_proxy": NOWHERE}, None),
        ("127.1", {"http_proxy": NOWHERE}, None),
        ("127.1.example", {"http_proxy": NOWHERE}, "http_proxy"),
    ],
)
def test_a_proxy_is_blamed_exactly_where_grpc_goes_through_it(
    host: str, environment: dict[str, str], found: str | None
) -> None:
    assert proxy_in_force(Address(host, 9441), environment) == found


def test_files_that_do_not_belong_together_are_told_before_anything_is_sent(
    tmp_path: Path,
) -> None:
    for folder in ("a", "b"):
        certs.init(tmp_path / folder, ["localhost"], ["one", "two"], force=False)
    mixed = {
        "one.pem is not signed by the authority in ca.pem": {"ca.pem": tmp_path / "b/ca.pem"},
        "one.key is not the key of one.pem": {"one.key": tmp_path / "a/two.key"},
        "no certificate for 'one'": {"one.pem": tmp_path / "a/one.key"},
        "one.pem is not made for clients": {
            "one.pem": tmp_path / "a/server.pem",
            "one.key": tmp_path / "a/server.key",
        },
    }
    for number, (says, other) in enumerate(mixed.items()):
        folder = tmp_path / str(number)
        folder.mkdir()
        for name in ("ca.pem", "one.pem", "one.key"):
            source = other.get(name, tmp_path / "a" / name)
            (folder / name).write_bytes(source.read_bytes())
        with pytest.raises(RecastError, match=says):
            ClientKeys.load(folder, "one")


@pytest.mark.parametrize(
    ("command", "says"),
    [
        ("join localhost:99999 --data . --name one", "'99999' is no port"),
        ("join http://localhost:1 --data . --name one", "leave http:// out"),
        ("join localhost --data . --name one", "has no port"),
        ("join localhost:0 --data . --name one", "0 is no port to join"),
        ("serve --listen ::1:9441 --tasks digits", "in brackets"),
        ("serve --listen localhost:99999 --tasks digits", "'99999' is no port"),
    ],
)
def test_the_command_ends_with_2_and_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], command: str, says: str
) -> None:
    monkeypatch.setattr(sys, "argv", ["recast", *command.split(), "--insecure"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert says in said
    assert said.count("\n") == 1
