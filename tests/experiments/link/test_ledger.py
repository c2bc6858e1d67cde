"""The ledger says what was handed to the transport: no more, no less, until the process ends."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import grpc
import pytest

from experiments.command.serve import for_clients
from protos import link_v1_pb2 as link
from protos import recast_v1_pb2 as pb
from protos.link import CHUNK, FETCH, SERVICE, TALK
from recast_core.settings import Settings
from recast_core.task_spec import parse_tasks
from server.app import Conditions, run_federation
from server.exchange.observer import LogObserver
from server.exchange.traffic import Topic, Traffic
from server.link.identity import node_id
from server.record.control import add_task, close
from server.record.ledger import Ledger
from server.record.registry import Registry
from tests.experiments.ends import LONG

if TYPE_CHECKING:
    from conftest import Federation

BANK = b"".join(hashlib.sha256(n.to_bytes(4, "big")).digest() for n in range(4_000))


def banks(registry: Registry, layer: str = "payload") -> dict[str, int]:
    """Recorded bytes of banks by client."""
    totals = Ledger(registry).totals(1, by=("client", "kind", "layer"))
    return {str(key[0]): size for key, size in totals.items() if key[1:] == ("bank", layer)}


class Desk:
    """A Traffic with a registry, as a server has."""

    def __init__(self, here: Federation, registry: Registry) -> None:
        self.ledger = Ledger(registry)
        self.traffic = Traffic(self.ledger, LogObserver())
        self._here, self._registry = here, registry

    def send(self, name: str) -> bytes:
        body = pb.ToClient(bank=pb.BankDelivery(content=BANK))
        self._here.grid.push_messages(
            [self.traffic.send(node_id(name), body, Topic(), self._here.grid)]
        )
        return body.SerializeToString()

    def counted(self, layer: str) -> int:
        self.traffic.take_from(self._here.grid)
        self._registry.record_traffic(1, self.ledger.drain(), self.ledger.drain_refusals())
        return sum(banks(self._registry, layer).values())


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[Registry]:
    with Registry(tmp_path / "registry.sqlite") as opened:
        opened.start_run({}, bytes(32), {})
        yield opened


def test_a_bank_counts_as_it_is_fetched_and_each_byte_once(
    federation: Callable[..., Federation], wait_until: Callable[..., None], registry: Registry
) -> None:
    here = federation(tls=False)
    desk, leave = Desk(here, registry), threading.Event()

    def saying() -> Iterator[bytes]:
        join = link.Join(instance=1, attempt=1, name="one")
        yield link.FromClient(join=join).SerializeToString()
        leave.wait(LONG)

    with grpc.insecure_channel(f"localhost:{here.port}") as channel:
        stream = channel.stream_stream(f"/{SERVICE}/{TALK}")(saying())
        here.grid.wait_for_clients(1)
        body = desk.send("one")
        assert desk.counted("message") == 0
        have = 0
        method = channel.unary_stream(f"/{SERVICE}/{FETCH}")
        sha256 = hashlib.sha256(body).digest()
        # One that gives up, one from where it stopped, and one that is not needed.
        for chunks in (2, 1000, 0):
            request = link.FetchRequest(sha256=sha256, offset=have, name="one")
            call = method(request.SerializeToString())
            for _, raw in zip(range(chunks), call, strict=False):
                have += len(link.Chunk.FromString(raw).content)
            call.cancel()
            wait_until(lambda: here.grid.sessions.get("one").fetching == 0)
            counted = desk.counted("message")
            # What a peer that gives up has been sent and did not read was handed over too.
            assert have <= counted <= max(have + 8 * CHUNK, len(body) if chunks > 2 else 0)
        assert have == len(body)
        assert desk.counted("message") <= len(body) + 8 * CHUNK
        assert desk.counted("payload") == desk.counted("message") - (len(body) - len(BANK))
        leave.set()
        stream.cancel()


def test_a_bank_that_lies_at_the_client_already_costs_nothing_after_a_restart(
    federation: Callable[..., Federation], registry: Registry, wait_until: Callable[..., None]
) -> None:
    """Killed between the download and the receipt: the next server sends the bank in words only."""
    here, go = federation(), threading.Event()
    desk = Desk(here, registry)
    one = here.join("one", lambda _, body: body[: go.wait(LONG)])
    here.grid.wait_for_clients(1)
    body = desk.send("one")
    wait_until(lambda: one.link.fetched == len(body))
    assert desk.counted("payload") == len(BANK)
    here.restart()
    one.stop()
    go.set()
    again = here.join("one", lambda _, body: b"stored")
    here.grid.wait_for_clients(1)
    desk.send("one")
    wait_until(lambda: again.asked)
    assert again.link.fetched == 0
    assert desk.counted("payload") == len(BANK)
    assert desk.counted("message") == len(body)


def test_a_client_that_joins_after_the_last_round_is_in_the_ledger(
    federation: Callable[..., Federation],
    wait_until: Callable[..., None],
    tiny: Callable[..., Settings],
    deal: Callable[[Settings, int, Path], list[Path]],
    tmp_path: Path,
) -> None:
    task, later = tiny().tasks.split()
    settings = tiny(tasks=task, keep_running=True, run_dir=str(tmp_path / "run"))
    folders = deal(settings, 2, tmp_path / "data")
    here = federation(settings=for_clients(settings))
    first = here.take_part("one", folders[0], 0)
    here.grid.wait_for_clients(1)
    path, failed = tmp_path / "run" / "registry.sqlite", []

    def newcomer() -> None:
        try:
            with Registry(path) as registry:
                wait_until(lambda: registry.accuracies(1))
                # Nobody has its images, so that no round follows.
                (spec,) = parse_tasks(later)
                add_task(registry, 1, spec)
                here.take_part("two", folders[1], 1)
                wait_until(lambda: str(node_id("two")) in banks(registry))
                close(registry, 1)
        except BaseException as error:
            failed.append(error)

    path.parent.mkdir()
    Registry(path).close()
    thread = threading.Thread(target=newcomer, daemon=True)
    thread.start()
    run_federation(
        here.grid, settings, tmp_path / "run", LogObserver(), conditions=Conditions(patience=20)
    )
    thread.join(LONG)
    assert not failed
    assert first.wait() == "finished"
    (bank,) = (tmp_path / "run").glob("bank-*.safetensors")
    with Registry(path) as registry:
        assert banks(registry) == {
            str(node_id(name)): bank.stat().st_size for name in ("one", "two")
        }
        totals = Ledger(registry).totals(1, by=("client", "direction", "layer"))
    for session in here.grid.sessions.all():
        client = str(node_id(session.name))
        for direction, frames in (("up", session.up), ("down", session.down)):
            counted = totals[client, direction, "message"]
            # Frames have heads of a few bytes each, the first of a stream carries the settings.
            assert counted <= frames <= counted + 1500
