"""Many light clients at one server: ``python -m experiments.studies.link_load --clients 500``.

The clients are stubs on asyncio in processes of their own, which answer each message with as many
bytes as an update has. Prints the server's memory for each idle client, and the seconds of rounds.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
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
from server.flower import server_identity
from server.link import LinkGrid, ServerKeys

BROADCAST, UPDATE = bytes(79), bytes(45)


async def stub(endpoint: Endpoint, name: str) -> None:
    """Join, and answer until the server ends the stream."""
    join = link.Join(instance=1, attempt=1, name=endpoint.claim(name))
    async with endpoint.connect() as channel:
        call: grpc.aio.StreamStreamCall[bytes, bytes] = channel.stream_stream(
            f"/{SERVICE}/{TALK}"
        )()
        await call.write(link.FromClient(join=join).SerializeToString())
        while isinstance(raw := await call.read(), bytes):
            frame = link.FromServer.FromString(raw)
            if frame.number:
                answer = link.FromClient(number=frame.number, reply=UPDATE)
                await call.write(answer.SerializeToString())


async def stubs(target: str, folder: Path | None, names: Sequence[str]) -> None:
    """All stubs of this process."""
    keys = [None if folder is None else ClientKeys.load(folder, name) for name in names]
    await asyncio.gather(
        *(stub(Endpoint(target, key), name) for key, name in zip(keys, names, strict=True))
    )


def resident() -> int:
    """Bytes of memory that this process holds."""
    fields = Path("/proc/self/statm").read_text().split()
    return int(fields[1]) * 4096


def measure(clients: int, rounds: int, folder: Path | None) -> dict[str, float]:
    """Start ``clients`` stubs in four processes and run rounds; ``folder`` is for certificates."""
    names = [f"stub-{index}" for index in range(clients)]
    keys = None
    if folder is not None:
        certs.init(folder, ["localhost"], names, force=False)
        keys = ServerKeys.load(folder)
    with server_identity(), LinkGrid("127.0.0.1:0", keys, {}) as grid:
        target = grid.address.replace("127.0.0.1", "localhost")
        before = resident()
        began = time.monotonic()
        processes = [
            subprocess.Popen(
                [sys.executable, "-P", "-m", "experiments.studies.link_load", "--stubs", target]
                + ([] if folder is None else ["--certs", str(folder)])
                + names[part::4],
                env={**os.environ, **environment()},
            )
            for part in range(4)
        ]
        try:
            grid.wait_for_clients(clients)
            joined = time.monotonic() - began
            time.sleep(1)
            idle = resident() - before
            seconds = []
            for _ in range(rounds):
                start = time.monotonic()
                nodes = grid.get_node_ids()
                messages = [Message(to_content(BROADCAST), node, "train") for node in nodes]
                replies = list(grid.send_and_receive(messages, timeout=60))
                seconds.append(time.monotonic() - start)
                assert len(replies) == clients, f"{len(replies)} of {clients} answered"
        finally:
            for process in processes:
                process.terminate()
                process.wait()
    return {
        "clients": clients,
        "seconds_to_join": joined,
        "kilobytes_per_idle_client": idle / clients / 1000,
        "first_round_seconds": seconds[0],
        "round_seconds": median(seconds),
    }


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments.studies.link_load", description=__doc__
    )
    parser.add_argument("--clients", type=int, default=500)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--insecure", action="store_true", help="no TLS")
    parser.add_argument("--stubs", help=argparse.SUPPRESS)
    parser.add_argument("--certs", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("names", nargs="*", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.stubs:
        asyncio.run(stubs(options.stubs, options.certs, options.names))
        return
    with tempfile.TemporaryDirectory() as folder:
        certificates = None if options.insecure else Path(folder) / "certs"
        print(json.dumps(measure(options.clients, options.rounds, certificates)))


if __name__ == "__main__":
    main()
