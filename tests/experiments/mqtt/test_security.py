"""Nobody speaks in another's name: by the broker's access list, and by what the server checks."""

from __future__ import annotations

import http.server
import logging
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from client.link import ClientKeys
from client.mqtt import ClientAccess
from experiments.command import certs
from experiments.command.broker import client_access, server_access
from experiments.measure.mosquitto import ACCESS, SECURE
from protos import link_v1_pb2 as link
from protos import recast_v1_pb2 as pb
from protos.mqtt import PASSWORD, BrokerUrl
from recast_core.errors import RecastError
from server.link.identity import DeniedError
from server.mqtt.proof import Proofs

if TYPE_CHECKING:
    from conftest import Client, Site

NOT_AUTHORISED = 0x87


def ending(client: Client) -> str:
    error = client.wait()
    assert isinstance(error, RecastError), error
    assert "\n" not in str(error)
    return str(error)


def test_a_client_can_neither_write_anothers_topic_nor_read_what_is_for_another(
    site_of_one: Callable[..., tuple[Site, Client]],
) -> None:
    here, _ = site_of_one()
    two = here.raw("two")
    assert two.publish("recast/up/two", b"\xff") < 0x80
    for topic in ("recast/up/one", "recast/all/0", "recast/all/s", "recast/down/one"):
        assert two.publish(topic, b"forged") == NOT_AUTHORISED, topic
    two.subscribe("recast/#")
    two.subscribe("recast/up/one")
    assert here.ask(b"forward") == [b"drawrof"]
    assert not [topic for topic, payload, _ in two.heard if b"orwar" in payload or "up/" in topic]
    reasons = [(refusal.client, refusal.reason) for refusal in here.grid.take_refusals()]
    assert [reason for _, reason in reasons] == ["garbage"], "only what two wrote in its own name"


def test_the_documents_show_the_configuration_that_is_tested() -> None:
    text = (Path(__file__).parents[3] / "docs" / "mqtt.md").read_text()
    assert ACCESS in text
    assert SECURE in text


def test_a_revoked_client_is_refused_at_its_next_word_and_the_others_go_on(
    site: Callable[..., Site], wait_until: Callable[..., None]
) -> None:
    here = site()
    here.serve()

    def late(type_: str, body: bytes) -> bytes:
        certs.revoke(here.certs, "one")
        return body[::-1]

    one, _ = here.join("one", late), here.join("two")
    here.grid.wait_for_clients(2)
    answers = here.ask(b"forward", "one", "two")
    assert answers == ["the certificate of one is revoked", b"drawrof"]
    assert "the certificate of one has been revoked" in ending(one)
    assert "the certificate of one has been revoked" in ending(here.join("one"))


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    certs.init(tmp_path / "own", ["localhost"], ["serve", "one", "two"], force=False)
    certs.init(tmp_path / "other", ["localhost"], ["one"], force=False)
    return tmp_path


def signed(folder: Path, whose: str, name: str, serving: int) -> link.Join:
    join = link.Join(session=1, received=2, instance=3, attempt=4, connection=5)
    url = BrokerUrl.parse("mqtts://localhost")
    ClientAccess(url, ClientKeys.load(folder, whose)).sign(name, join, serving)
    return join


def test_a_join_proves_who_sends_it_to_one_server_process(keys: Path) -> None:
    proofs = Proofs((keys / "own" / "ca.pem").read_bytes())
    good = signed(keys / "own", "one", "one", 7)
    assert proofs.check("one", good, 7) > 0
    forged = link.Join.FromString(good.SerializeToString())
    forged.attempt += 1
    odd = good.certificate.replace(bytes.fromhex("a003020102"), bytes.fromhex("a003020101"))
    assert odd != good.certificate
    for join, name, serving, text in (
        (link.Join(), "one", 7, "no certificate came"),
        (link.Join(certificate=odd), "one", 7, "not of this federation's authority"),
        (good, "two", 7, "not that of two"),
        (good, "one", 8, "not signed by its certificate"),
        (forged, "one", 7, "not signed by its certificate"),
        (signed(keys / "own", "two", "one", 7), "one", 7, "not that of one"),
        (signed(keys / "other", "one", "one", 7), "one", 7, "not of this federation's authority"),
        (link.Join(certificate=b"x"), "one", 7, "not of this federation's authority"),
    ):
        with pytest.raises(DeniedError, match=text):
            proofs.check(name, join, serving)


def test_a_certificate_that_the_broker_does_not_take_ends_either_side_in_one_line(
    site: Callable[..., Site], tmp_path: Path
) -> None:
    here = site()
    certs.init(tmp_path / "other", ["localhost"], ["serve", "one"], force=False)
    for name in ("serve", "one"):
        for suffix in ("pem", "key"):
            file = tmp_path / "other" / f"{name}.{suffix}"
            (here.certs / file.name).write_bytes(file.read_bytes())
    (tmp_path / "own-ca.pem").write_bytes((here.certs / "ca.pem").read_bytes())
    with pytest.raises(RecastError, match="not signed by the authority in ca"):
        here.serve()
    here.certs = tmp_path / "other"
    with pytest.raises(RecastError, match=r"broker's certificate is not signed .* in ca\.pem"):
        here.serve()
    assert "broker's certificate is not signed by the authority" in ending(here.join("one"))


@pytest.mark.parametrize("tls", [True, False])
def test_one_end_with_tls_and_one_without_is_told_which(
    site: Callable[..., Site],
    tls: bool,
    caplog: pytest.LogCaptureFixture,
    wait_until: Callable[..., None],
) -> None:
    here = site(tls=tls)
    if not tls:
        certs.init(here.certs, ["localhost"], ["serve", "one"], force=False)
    here.tls = not tls
    with caplog.at_level(logging.WARNING, "recast.link"):
        here.join("one")
        wait_until(lambda: f"give mqtt{'' if here.tls else 's'}://" in caplog.text)


def test_a_wrong_password_ends_either_side_and_the_right_one_does_not(
    site: Callable[..., Site], monkeypatch: pytest.MonkeyPatch
) -> None:
    here = site(tls=False, broker=False)
    configuration = here.folder / "mosquitto.conf"
    text = configuration.read_text().replace("allow_anonymous true", "password_file passwords")
    configuration.write_text(text)
    passwords = str(here.folder / "passwords")
    for number, name in enumerate(("serve", "one")):
        more = ["-c"] if number == 0 else []
        subprocess.run(["mosquitto_passwd", "-b", *more, passwords, name, "secret"], check=True)
    here.broker.start()
    monkeypatch.setenv(PASSWORD, "wrong")
    with pytest.raises(RecastError, match=r"the broker refuses 'serve' .*RECAST_MQTT_PASSWORD"):
        here.serve()
    assert "the broker refuses 'one'" in ending(here.join("one"))
    monkeypatch.setenv(PASSWORD, "secret")
    here.serve()
    here.join("one")
    here.grid.wait_for_clients(1)
    assert here.ask(b"forward") == [b"drawrof"]


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("broker:8883", "is no broker: give mqtts://HOST:8883"),
        ("mqtts://one:secret@broker", "put it in RECAST_MQTT_PASSWORD"),
        ("mqtts://broker:99999", "Port out of range|no port"),
        ("mqtts://broker/a b", "is no topic"),
        ("mqtts://broker/#", "leave out|is no topic"),
        ("mqtt://broker", "give mqtts://, or insist with --force-insecure"),
    ],
)
def test_a_url_that_is_none_is_one_line(url: str, said: str, tmp_path: Path) -> None:
    for access in (
        lambda: server_access(url, tmp_path, forced=False),
        lambda: client_access(url, tmp_path, "one", keepalive=240, forced=False),
    ):
        with pytest.raises(RecastError, match=said) as raised:
            access()
        assert "\n" not in str(raised.value)
        assert "secret" not in str(raised.value)


class Web:
    """A file server that knows ranges, and can break off."""

    def __init__(self, content: bytes) -> None:
        self.content, self.sent, self.break_in = content, 0, 0
        self.ranges: list[str] = []
        web = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                asked = self.headers["Range"] or ""
                web.ranges.append(asked)
                if self.path != "/bank":
                    self.send_error(404)
                    return
                start = int(asked[6:-1]) if asked else 0
                self.send_response(206)
                self.send_header("Content-Length", str(len(web.content) - start))
                self.end_headers()
                content = web.content[start:]
                if len(web.ranges) == web.break_in:
                    content = content[:100_000]
                web.sent += len(content)
                self.wfile.write(content)

            def log_message(self, *_: object) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self._server.server_port}/bank"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def web() -> Iterator[Web]:
    made = Web(bytes(range(256)) * 1000)
    yield made
    made.close()


def delivery(content: bytes) -> bytes:
    bank = pb.BankDelivery(bank=pb.BankRef(sha256=bytes(32), size=len(content)), content=content)
    return pb.ToClient(bank=bank).SerializeToString()


def test_a_bank_from_the_web_passes_by_the_broker_and_goes_on_after_a_break(
    site: Callable[..., Site], web: Web
) -> None:
    here = site(tls=False)
    here.serve(web.url)
    relay = here.relay()
    client = here.join("one", lambda type_, body: b"ok", relay.port)
    here.grid.wait_for_clients(1)
    assert here.ask(b"x") == [b"ok"]
    body = delivery(web.content)
    web.break_in = 2  # the server looks first
    assert here.ask(body, type_="query.bank") == [b"ok"]
    assert client.asked[-1] == ("query.bank", body)
    assert relay.counted().down < 2000, "the broker carries none of it"
    assert [one.partition("=")[2] for one in web.ranges[:2]] == ["0-", "0-"]
    assert len(web.ranges) == 3
    assert web.sent <= 2 * len(web.content) + 100


def test_another_file_behind_the_url_is_refused_by_the_server_and_by_a_client(
    site: Callable[..., Site], web: Web
) -> None:
    here = site(tls=False)
    here.serve(web.url)
    here.join("one", lambda type_, body: b"ok")
    here.grid.wait_for_clients(1)
    other = bytes(len(web.content))
    with pytest.raises(RecastError, match=r"is not the bank of this run .*put bank-…\.safetensors"):
        here.ask(delivery(other), type_="query.bank")
    good = web.content
    assert here.ask(delivery(good), type_="query.bank") == [b"ok"]
    web.content = other
    here.join("two", lambda type_, body: b"ok")
    here.grid.wait_for_clients(2)
    (said,) = here.ask(delivery(good), "two", type_="query.bank")
    assert "is not the bank that the server announced" in said
    here.serve(f"{web.url}s").wait_for_clients(1)
    with pytest.raises(RecastError, match="answers 404 Not Found: check the address"):
        here.ask(delivery(good), type_="query.bank")


def test_a_url_that_no_client_can_fetch_from_is_one_line(site: Callable[..., Site]) -> None:
    here = site(tls=False)
    for url in ("file:///etc/passwd", "s3://bucket/bank", "bank.safetensors"):
        with pytest.raises(RecastError, match="give http:// or https://"):
            here.serve(url)


def test_a_list_of_revoked_certificates_that_nobody_can_read_is_said_at_the_start(
    tmp_path: Path,
) -> None:
    certs.init(tmp_path / "certs", ["localhost"], ["serve"], force=False)
    revoked = tmp_path / "certs" / "revoked.txt"
    for content, said in (("no number\n", "mend it"), (None, "the list of revoked certificates")):
        revoked.unlink() if content is None else revoked.write_text(content)
        with pytest.raises(RecastError, match=said):
            server_access("mqtts://localhost:1", tmp_path / "certs", forced=False)
