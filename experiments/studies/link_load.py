"""Many light clients at one server: ``python -m experiments.studies.link_load --clients 500``.

The clients are stubs on asyncio in processes of their own. They speak the link as `recast join`
does, also when they lose it, and answer each message with as many bytes as an update has. Prints
the server's memory for each client, the seconds of rounds, and how soon all are back after the
server was away: they all lose it at once, and come back by the waits of `recast_core.backoff`. All
come from one address, of which the server takes 128 joins at once and puts off the rest.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

import grpc.aio
from flwr.app import Message

from client.link.channel import ClientKeys, Endpoint
from experiments.command import certs
from experiments.command.program import environment
from protos import link_v1_pb2 as link
from protos.content import to_content
from protos.link import SERVICE, TALK
from recast_core.backoff import Backoff
from server.flower import server_identity
from server.link import LinkGrid, ServerKeys

BROADCAST, UPDATE = bytes(79), bytes(45)
_PROCESSES = 4
# A disk would be asked twice for each certificate whether it has it.
_MEMORY = Path("/dev/shm")
# At the start a process lets so many of its stubs join at once, each for so long.
_JOINING, _FIRST_SECONDS = 16, 10.0


@dataclass
class Stub:
    """A client that holds nothing and answers at once.

    Attributes:
        endpoint: of the server.
        name: its own.
    """

    endpoint: Endpoint
    name: str
    _instance: int = field(default_factory=lambda: random.getrandbits(32) | 1)
    _attempt: int = 0
    _session: int = 0
    _received: int = 0
    _welcomed: asyncio.Event = field(default_factory=asyncio.Event)

    async def live(self, first: asyncio.Semaphore) -> None:
        """Join, answer, and come back as `recast join` does, until the server is done."""
        backoff = Backoff()
        async with first:
            joined = asyncio.create_task(self._talk(backoff))
            welcome = asyncio.create_task(self._welcomed.wait())
            await asyncio.wait(
                {joined, welcome}, timeout=_FIRST_SECONDS, return_when=asyncio.FIRST_COMPLETED
            )
            welcome.cancel()
        while True:
            try:
                if await joined:
                    return
            except grpc.aio.AioRpcError:
                pass
            await asyncio.sleep(backoff.next())
            joined = asyncio.create_task(self._talk(backoff))

    async def _talk(self, backoff: Backoff) -> bool:
        """One stream; whether the server has dismissed this client for good."""
        self._attempt += 1
        join = link.Join(
            instance=self._instance, attempt=self._attempt, name=self.endpoint.claim(self.name),
            session=self._session, received=self._received,
        )  # fmt: skip
        async with self.endpoint.connect() as channel:
            call: grpc.aio.StreamStreamCall[bytes, bytes] = channel.stream_stream(
                f"/{SERVICE}/{TALK}"
            )()
            await call.write(link.FromClient(join=join).SerializeToString())
            while isinstance(raw := await call.read(), bytes):
                frame = link.FromServer.FromString(raw)
                match frame.WhichOneof("body"):
                    case "welcome":
                        self._welcomed.set()
                        backoff.reset()
                        if frame.welcome.session != self._session:
                            self._session, self._received = frame.welcome.session, 0
                    case "dismissal":
                        return frame.dismissal.reason == link.Dismissal.REASON_FINISHED
                    case _ if frame.number:
                        self._received = frame.number
                        answer = link.FromClient(number=frame.number, reply=UPDATE)
                        await call.write(answer.SerializeToString())
        return False


async def stubs(target: str, folder: Path | None, names: Sequence[str]) -> None:
    """All stubs of this process."""
    keys = [None if folder is None else ClientKeys.load(folder, name) for name in names]
    first = asyncio.Semaphore(_JOINING)
    await asyncio.gather(
        *(
            Stub(Endpoint(target, key), name).live(first)
            for key, name in zip(keys, names, strict=True)
        )
    )


def resident() -> int:
    """Bytes of memory that this process holds."""
    fields = Path("/proc/self/statm").read_text().split()
    return int(fields[1]) * 4096


def measure(
    clients: int, rounds: int, folder: Path | None, away: float, patience: float
) -> dict[str, float]:
    """Start ``clients`` stubs, run rounds, and take the server away for ``away`` seconds.

    ``folder`` is for certificates, ``None`` for no TLS. ``patience`` bounds each wait.
    """
    names = [f"stub-{index}" for index in range(clients)]
    keys = None
    if folder is not None:
        certs.init(folder, ["localhost"], names, force=False)
        keys = ServerKeys.load(folder)
    found: dict[str, float] = {"clients": clients}
    processes: list[subprocess.Popen[bytes]] = []
    try:
        with server_identity(), LinkGrid("127.0.0.1:0", keys, {}) as grid:
            port = grid.address.rpartition(":")[2]
            before, began = resident(), time.monotonic()
            for part in range(_PROCESSES):
                processes.append(_start(port, folder, names[part::_PROCESSES]))
            found["seconds_to_join"] = _await(grid, clients, began, patience)
            time.sleep(1)
            found["kilobytes_per_idle_client"] = (resident() - before) / clients / 1000
            seconds = [_round(grid, clients, patience) for _ in range(rounds)]
            found["first_round_seconds"] = seconds[0]
            found["round_seconds"] = median(seconds)
            found["kilobytes_per_client"] = (resident() - before) / clients / 1000
            # As a server that is killed: nobody is told anything.
            grid.end(finished=False)
        time.sleep(away)
        began = time.monotonic()
        with server_identity(), LinkGrid(f"127.0.0.1:{port}", keys, {}) as grid:
            for share in (0.5, 0.9, 0.99, 1.0):
                taken = _await(grid, math.ceil(share * clients), began, patience)
                found[f"seconds_until_{100 * share:g}_percent_are_back"] = taken
            found["round_after_seconds"] = _round(grid, clients, patience)
    finally:
        for process in processes:
            process.kill()
            process.wait()
    return found


def _start(port: str, folder: Path | None, names: Sequence[str]) -> subprocess.Popen[bytes]:
    command = [
        sys.executable, "-P", "-m", "experiments.studies.link_load", "--stubs", f"localhost:{port}",
        *([] if folder is None else ["--certs", str(folder)]),
    ]  # fmt: skip
    process = subprocess.Popen(command, stdin=subprocess.PIPE, env={**os.environ, **environment()})
    assert process.stdin is not None
    process.stdin.write(" ".join(names).encode())  # too many for a command line
    process.stdin.close()
    return process


def _await(grid: LinkGrid, clients: int, began: float, patience: float) -> float:
    """Seconds since ``began`` until so many clients are connected."""
    while len(list(grid.get_node_ids())) < clients:
        if time.monotonic() - began > patience:
            there = len(list(grid.get_node_ids()))
            raise SystemExit(f"{there} of {clients} clients after {patience:g} s")
        time.sleep(0.1)
    return time.monotonic() - began


def _round(grid: LinkGrid, clients: int, patience: float) -> float:
    start = time.monotonic()
    nodes = grid.get_node_ids()
    messages = [Message(to_content(BROADCAST), node, "train") for node in nodes]
    replies = list(grid.send_and_receive(messages, timeout=patience))
    seconds = time.monotonic() - start
    right = sum(not reply.has_error() for reply in replies)
    assert right == clients, f"{right} of {clients} answered"
    return seconds


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments.studies.link_load", description=__doc__
    )
    parser.add_argument("--clients", type=int, default=500)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--away", type=float, default=5.0, help="seconds without a server")
    parser.add_argument("--patience", type=float, default=300.0, help="seconds for each wait")
    parser.add_argument("--insecure", action="store_true", help="no TLS")
    parser.add_argument("--stubs", help=argparse.SUPPRESS)
    parser.add_argument("--certs", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.stubs:
        asyncio.run(stubs(options.stubs, options.certs, sys.stdin.read().split()))
        return
    with tempfile.TemporaryDirectory(dir=_MEMORY if _MEMORY.is_dir() else None) as folder:
        certificates = None if options.insecure else Path(folder) / "certs"
        found = measure(
            options.clients, options.rounds, certificates, options.away, options.patience
        )
        print(json.dumps(found))


if __name__ == "__main__":
    main()
