"""Who may join, and what happens to those who misbehave: the others go on."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import grpc
import pytest
from cryptography import x509

from client.link import ClientKeys
from experiments.command import certs
from protos import link_v1_pb2 as link
from protos.link import FETCH, MAX_FRAME, SERVICE, TALK
from recast_core.errors import RecastError
from recast_core.secure.members import announced, own_identity
from server.exchange.hush import Bucket
from server.link import sessions
from server.link.session import Session
from tests.experiments.ends import LONG

if TYPE_CHECKING:
    from conftest import Federation

Talk = Callable[[Iterator[bytes]], Iterator[bytes]]


@pytest.fixture
def raw() -> Iterator[Callable[..., grpc.Channel]]:
    """A channel of one's own, to say over it whatever one likes."""
    made: list[grpc.Channel] = []

    def connect(here: Federation, keys: ClientKeys | None) -> grpc.Channel:
        target = f"localhost:{here.port}"
        options = [("grpc.use_local_subchannel_pool", 1)]
        if keys is None:
            made.append(grpc.insecure_channel(target, options))
        else:
            credentials = grpc.ssl_channel_credentials(keys.authority, keys.key, keys.certificate)
            made.append(grpc.secure_channel(target, credentials, options))
        return made[-1]

    yield connect
    for channel in made:
        channel.close()


def join(name: str = "", instance: int = 1, attempt: int = 1, received: int = 0) -> bytes:
    body = link.Join(instance=instance, attempt=attempt, name=name, received=received)
    return link.FromClient(join=body).SerializeToString()


def say(channel: grpc.Channel, *frames: bytes) -> tuple[list[bytes], grpc.RpcError]:
    """What the server says to these frames, and how it ends the stream.

    Of more than one the first is a Join, and the rest is said when that has been answered: an end
    that is no success takes with it what has yet to be read.
    """
    welcomed, ended = threading.Event(), threading.Event()

    def saying() -> Iterator[bytes]:
        yield frames[0]
        assert len(frames) == 1 or welcomed.wait(LONG)
        yield from frames[1:]
        ended.wait(LONG)

    heard = []
    try:
        for frame in channel.stream_stream(f"/{SERVICE}/{TALK}")(saying(), timeout=LONG):
            heard.append(frame)
            welcomed.set()
    except grpc.RpcError as error:
        return heard, error
    finally:
        welcomed.set()
        ended.set()
    raise AssertionError("the server let it be")


def test_certificates_of_another_authority_and_none_at_all_are_refused(
    federation: Callable[..., Federation], raw: Callable[..., grpc.Channel], tmp_path: Path
) -> None:
    here = federation()
    certs.init(tmp_path / "other", ["localhost"], ["one"], force=False)
    stranger = ClientKeys.load(tmp_path / "other", "one")
    known = ClientKeys.load(here.certs, "one")
    forged = ClientKeys("one", stranger.key, stranger.certificate, known.authority)
    # The server's certificate is for servers: whoever has it cannot be a client.
    parts = [(here.certs / name).read_bytes() for name in ("server.key", "server.pem", "ca.pem")]
    server = ClientKeys("server", *parts)
    for keys in (stranger, forged, server, None):
        heard, error = say(raw(here, keys), join("one"))
        assert not heard
        assert error.code() == grpc.StatusCode.UNAVAILABLE
    assert not here.grid.sessions.all()


def test_a_client_is_its_certificate_whatever_name_it_claims(
    federation: Callable[..., Federation], raw: Callable[..., grpc.Channel]
) -> None:
    here = federation()
    two = here.join("two")
    here.grid.wait_for_clients(1)
    channel = raw(here, ClientKeys.load(here.certs, "one"))
    say(channel, join("two"), b"\xff")
    assert {one.name for one in here.grid.sessions.all()} == {"one", "two"}
    assert here.ask(b"abc", "two") == [b"cba"]
    assert two.events.count("connected") == 1


def test_a_revoked_certificate_is_refused_at_once_while_the_server_runs(
    federation: Callable[..., Federation], wait_until: Callable[..., None]
) -> None:
    here = federation()
    one, _ = here.join("one"), here.join("two")
    here.grid.wait_for_clients(2)
    certs.revoke(here.certs, "one")
    assert here.ask(b"abc", "two") == [b"cba"]
    error = one.wait()
    assert isinstance(error, RecastError)
    assert "revoked" in str(error)
    assert here.ask(b"abc", "two") == [b"cba"]
    assert here.grid.sessions.refused["denied"] >= 1


@pytest.mark.parametrize("tls", [True, False])
def test_garbage_oversize_and_silence_end_only_the_stream_they_came_in(
    federation: Callable[..., Federation], raw: Callable[..., grpc.Channel], tls: bool
) -> None:
    here = federation(tls)
    here.join("two")
    here.grid.wait_for_clients(1)
    channel = raw(here, ClientKeys.load(here.certs, "one") if tls else None)
    name = "" if tls else "one"
    noise = random.Random(0).randbytes(200)
    reply = link.FromClient(number=1, reply=bytes(MAX_FRAME)).SerializeToString()
    huge = bytes(10 * MAX_FRAME)
    bad: tuple[tuple[bytes, ...], ...] = (
        (noise,),
        (join(name, attempt=1), noise),
        (join(name, attempt=2), reply),
        (join(name, attempt=3), huge),
        (link.FromClient(number=1, reply=b"x").SerializeToString(),),
    )
    for frames in bad:
        _, error = say(channel, *frames)
        assert error.code() in (
            grpc.StatusCode.INVALID_ARGUMENT,
            grpc.StatusCode.RESOURCE_EXHAUSTED,
        ), error
        assert here.ask(b"abc", "two") == [b"cba"]
    assert here.grid.sessions.refused["garbage"] == 3
    assert here.grid.sessions.refused["oversize"] >= 1
    fetch = channel.unary_stream(f"/{SERVICE}/{FETCH}")
    for request in (noise, link.FetchRequest(sha256=b"x", name=name).SerializeToString()):
        with pytest.raises(grpc.RpcError):
            list(fetch(request, timeout=LONG))


def test_frames_that_answer_nothing_are_put_up_with_only_so_long(
    federation: Callable[..., Federation], raw: Callable[..., grpc.Channel],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    few = partial(Session, strays=Bucket(rate=0, burst=16))
    monkeypatch.setattr(sessions, "Session", few)
    here = federation(tls=False)
    channel = raw(here, None)
    frame = link.FromClient(number=7, reply=b"x").SerializeToString()
    heard, error = say(channel, join("one"), *[frame] * 50)
    assert error.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert len(heard) == 1
    assert here.grid.sessions.refused["stray"] == 17


def test_a_join_that_a_later_one_overtook_does_not_end_the_later(
    federation: Callable[..., Federation], raw: Callable[..., grpc.Channel]
) -> None:
    here = federation(tls=False)
    one = here.join("one")
    here.grid.wait_for_clients(1)
    late = join("one", instance=one.link._instance, attempt=one.link._attempt)
    _, error = say(raw(here, None), late)
    assert error.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert here.ask(b"abc") == [b"cba"]
    assert one.events.count("connected") == 1


def test_certificates_are_private_named_and_not_replaced_by_accident(tmp_path: Path) -> None:
    folder = tmp_path / "certs"
    certs.init(folder, ["server.example", "192.0.2.7"], ["edge-1"], force=False)
    for key in folder.glob("*.key"):
        assert key.stat().st_mode & 0o777 == 0o600
    server = x509.load_pem_x509_certificate((folder / "server.pem").read_bytes())
    names = server.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["server.example"]
    assert [str(a) for a in names.get_values_for_type(x509.IPAddress)] == ["192.0.2.7"]
    before = (folder / "edge-1.key").read_bytes()
    for again in (
        lambda: certs.init(folder, ["a"], [], force=False),
        lambda: certs.add(folder, "edge-1", force=False),
        lambda: certs.add(folder, "ca", force=True),
        lambda: certs.add(folder, "../edge", force=True),
        lambda: certs.init(tmp_path / "new", [], [], force=False),
        lambda: certs.init(tmp_path / "new", ["a:1"], [], force=False),
        lambda: certs.revoke(folder, "edge-9"),
        lambda: certs.add(tmp_path / "none", "edge-1", force=False),
    ):
        with pytest.raises(RecastError):
            again()
    assert (folder / "edge-1.key").read_bytes() == before
    certs.add(folder, "edge-1", force=True)
    assert (folder / "edge-1.key").read_bytes() != before
    path = certs.revoke(folder, "edge-1")
    assert certs.revoke(folder, "edge-1").read_text() == path.read_text()
    # Both certificates of the name, once each.
    assert path.read_text().count("\n") == 2


def test_a_stolen_key_is_revoked_with_the_name_whatever_replaced_it(
    federation: Callable[..., Federation], wait_until: Callable[..., None], tmp_path: Path
) -> None:
    here = federation()
    stolen = [ClientKeys.load(here.certs, "one")]
    certs.add(here.certs, "one", force=True)
    stolen.append(ClientKeys.load(here.certs, "one"))
    (here.certs / "one.pem").unlink()
    certs.add(here.certs, "one", force=True)
    one = here.join("one")
    here.grid.wait_for_clients(1)
    for number, keys in enumerate(stolen):
        folder = tmp_path / f"thief-{number}"
        thief = here.join("one", keys=keys, cache=folder)
        assert "revoked" in str(thief.wait())
    assert one.ended is None
    (here.certs / "one.pem").unlink()
    certs.revoke(here.certs, "one")
    assert "revoked" in str(one.wait())
    lines = [line.split()[1:] for line in certs.overview(here.certs)]
    assert [line[0] for line in lines] == ["one", "two", "one", "one"]
    assert [line[2] for line in lines] == ["revoked", "good", "revoked", "revoked"]


def test_certificates_of_before_there_was_a_list_are_known_and_one_can_be_revoked_by_number(
    tmp_path: Path,
) -> None:
    certs.init(tmp_path, ["localhost"], ["one", "two"], force=False)
    (tmp_path / "issued.txt").unlink()
    (tmp_path / "revoked.txt").unlink()
    old = x509.load_pem_x509_certificate((tmp_path / "one.pem").read_bytes()).serial_number
    certs.add(tmp_path, "one", force=True)
    path = tmp_path / "revoked.txt"
    assert path.read_text().startswith(f"{old:x} # one, ")
    new = x509.load_pem_x509_certificate((tmp_path / "one.pem").read_bytes()).serial_number
    certs.revoke(tmp_path, "one", f"{new:X}")
    certs.revoke(tmp_path, "gone", "0a:0b")
    assert [line.split(",")[0] for line in path.read_text().splitlines()] == [
        f"{old:x} # one",
        f"{new:x} # one",
        "a0b # gone",
    ]
    for bad in ("edge", "", "-1"):
        with pytest.raises(RecastError):
            certs.revoke(tmp_path, "one", bad)
    path.write_text("nonsense\n")
    with pytest.raises(RecastError, match="line 1"):
        certs.revoke(tmp_path, "two")


def test_the_server_tells_whose_key_for_hidden_sums_others_would_not_believe(
    federation: Callable[..., Federation],
) -> None:
    here = federation()
    here.join("one")
    here.grid.wait_for_clients(1)
    ((node, _),) = here.grid.names().items()
    paths = ((here.certs / f"{name}.key", here.certs / f"{name}.pem") for name in ("one", "two"))
    one, two = (announced(bytes(32), own_identity(*p, here.certs / "ca.pem")) for p in paths)
    assert here.grid.why_not_of(node, one) == ""
    assert "not that of one" in here.grid.why_not_of(node, two)
    one.signature = two.signature
    assert "not signed" in here.grid.why_not_of(node, one)
    plain = federation(tls=False)
    plain.join("one")
    plain.grid.wait_for_clients(1)
    assert plain.grid.why_not_of(node, one) == ""
