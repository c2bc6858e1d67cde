"""One client floods a broker's queue for the server: ``python -m experiments.studies.mqtt_flood``.

Mosquitto, a grid in this process, four honest clients that answer at once in another, and one that
publishes joins as fast as it can in a third. A round asks all four and waits ``--deadline`` s.
Prints a row for each length of the broker's queue: without the flood, then with it.
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import tempfile
import time
from collections.abc import Sequence
from multiprocessing.sharedctypes import Synchronized
from pathlib import Path

import paho.mqtt.client as paho
from flwr.app import Context, Message
from paho.mqtt.enums import CallbackAPIVersion

from client.link import LocalApp
from client.mqtt import MqttClient
from experiments.command.broker import client_access, server_access
from experiments.measure.mosquitto import Mosquitto
from experiments.measure.processes import Processes
from experiments.measure.relay import free_port
from protos import link_v1_pb2 as link
from protos.content import from_content, to_content
from server.flower import server_identity
from server.link.identity import node_id
from server.mqtt import MqttGrid

# For rounds that nobody floods, whose answers are late where the machine stands still alone.
PATIENCE = 240.0
HONEST = ("one", "two", "three", "four")
HEAD = (
    "| queue | flood | joins/s | rounds | answers lost | rounds that waited | median round, ms "
    "| broker, MiB |"
)


def _echo(message: Message, context: Context) -> Message:
    return Message(to_content(from_content(message) or b""), reply_to=message)


def honest(url: str, folder: str) -> None:
    """Four clients that answer with what they were asked."""

    async def go() -> None:
        await asyncio.gather(
            *(
                MqttClient(
                    client_access(url, Path(folder), name, keepalive=60, forced=False),
                    name,
                    LocalApp(_echo, {}, Path(folder) / name),
                ).run()
                for name in HONEST
            )
        )

    asyncio.run(go())


def flood(port: int, qos: int, sent: Synchronized[int]) -> None:
    """Joins without end; how many is in ``sent``."""
    peer = paho.Client(CallbackAPIVersion.VERSION2, client_id="flood", protocol=paho.MQTTv5)
    peer.max_inflight_messages_set(60_000)
    peer.connect("localhost", port)
    peer.loop_start()
    join = link.FromClient(join=link.Join(session=1, certificate=b"none")).SerializeToString()
    while True:
        for _ in range(100):
            peer.publish("recast/up/flood", join, qos=qos)
        sent.value += 100
        while peer.want_write():  # as fast as the broker takes them
            time.sleep(0.0005)


def rounds(
    grid: MqttGrid, seconds: float, deadline: float, sent: Synchronized[int] | None
) -> tuple[list[float], int]:
    """How long each round took, and how many answers never came.

    Rounds go on until ``seconds`` are over, and whoever floods has ``sent`` something meanwhile.
    """
    ends, took, lost = time.monotonic() + seconds, list[float](), 0
    before = sent.value if sent is not None else -1
    while time.monotonic() < ends or not took or (sent is not None and sent.value == before):
        began = time.monotonic()
        asked = [Message(to_content(b"x" * 60), node_id(name), "train") for name in HONEST]
        replies = list(grid.send_and_receive(asked, timeout=deadline))
        lost += len(HONEST) - sum(not reply.has_error() for reply in replies)
        took.append(time.monotonic() - began)
    return took, lost


def resident(port: int) -> int:
    """MiB that the broker at this port has had at the most."""
    for status in Path("/proc").glob("[0-9]*/status"):
        text = status.read_text() if status.exists() else ""
        if text.startswith("Name:\tmosquitto\n") and str(port) in _folder(status):
            peak = next(line for line in text.splitlines() if line.startswith("VmHWM"))
            return int(peak.split()[1]) >> 10
    return 0


def _folder(status: Path) -> str:
    """The configuration of a broker; empty where it is somebody else's, or gone."""
    try:
        return (status.parent / "cwd").resolve().joinpath("mosquitto.conf").read_text()
    except OSError:
        return ""


def measured(queue: int | None, qos: int, given: argparse.Namespace) -> list[str]:
    """Rows of one broker, without and with the flood."""
    context, found = multiprocessing.get_context("spawn"), []
    with tempfile.TemporaryDirectory() as name, Processes(Path(name) / "logs", {}) as processes:
        folder, port = Path(name), free_port()
        broker = Mosquitto(folder, processes, port, secure=False)
        if queue is not None:
            with (folder / "mosquitto.conf").open("a") as file:
                file.write(f"max_queued_messages {queue}\n")
        broker.start()
        url = f"mqtt://localhost:{port}"
        with server_identity():
            grid = MqttGrid(server_access(url, folder, forced=False), {"rounds": 3})
            peers = [context.Process(target=honest, args=(url, name), daemon=True)]
            peers[0].start()
            grid.wait_for_clients(len(HONEST))
            sent = context.Value("q", 0)
            for flooded in (False, True):
                if flooded:
                    peers.append(context.Process(target=flood, args=(port, qos, sent), daemon=True))
                    peers[-1].start()
                    while not sent.value:
                        time.sleep(0.1)
                before, began = sent.value, time.monotonic()
                took, lost = (
                    rounds(grid, given.seconds, given.deadline, sent)
                    if flooded
                    else rounds(grid, given.seconds, max(PATIENCE, given.deadline), None)
                )
                rate = (sent.value - before) / (time.monotonic() - began)
                waited = sum(seconds >= given.deadline for seconds in took)
                cells = (
                    "1,000 (default)" if queue is None else f"{queue:,}" if queue else "no limit",
                    f"QoS {qos}" if flooded else "none",
                    f"{rate:,.0f}", f"{len(took):,}", f"{lost:,} of {len(took) * len(HONEST):,}",
                    waited, f"{1000 * sorted(took)[len(took) // 2]:.0f}", resident(port),
                )  # fmt: skip
                found.append("| " + " | ".join(map(str, cells)) + " |")
            for peer in peers:
                peer.kill()
            grid.end(finished=False)
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=15.0, help="with and without, each")
    parser.add_argument("--deadline", type=float, default=2.0)
    parser.add_argument("--queues", type=int, nargs="*", default=[1000, 100_000, 0])
    parser.add_argument("--qos", type=int, nargs="*", default=[0, 1])
    given = parser.parse_args(arguments)
    print(HEAD, "|---" * 8 + "|", sep="\n", flush=True)
    for queue in given.queues:
        for qos in given.qos:
            for row in measured(None if queue == 1000 else queue, qos, given):
                print(row, flush=True)


if __name__ == "__main__":
    main()
