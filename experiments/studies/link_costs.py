"""What an attack on the link costs a server: ``python -m experiments.studies.link_costs``.

A server of the link that has nothing else to do, and whoever attacks it, as processes. Told is the
processor time of the one for each second of the other's, which other work on the machine does not
change: what a server loses of a core to an attacker that has a core for itself.
"""

from __future__ import annotations

import argparse
import logging
import os
import socket
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from experiments.command import certs
from experiments.measure.relay import free_port
from experiments.studies.link_foes import FOES, Site
from experiments.studies.lives import FORK, killed
from server.flower import server_identity
from server.link import LinkGrid, ServerKeys

# A machine that does much else lets an attacker wait: it goes on until it has had so much time.
LEAST, PATIENCE = 0.2, 240.0
HEAD = "| attack | attacker's CPU s | server's CPU s | of a core |\n|---|--:|--:|--:|"


def serve(site: Site) -> None:
    """A server that is there, in a process of its own."""
    logging.disable(logging.CRITICAL)
    with Path(os.devnull).open("w") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    with (
        server_identity(),
        LinkGrid(f"127.0.0.1:{site.port}", ServerKeys.load(site.certs), {}),
    ):
        time.sleep(1e6)


def cost(name: str, seconds: float) -> tuple[float, float]:
    """Processor seconds of the attacker and of the server, what it takes by itself not counted."""
    with tempfile.TemporaryDirectory(prefix="recast-link-") as folder:
        site = Site(free_port(), Path(folder) / "certs")
        certs.init(site.certs, ["localhost"], [site.name], force=False)
        server = FORK.Process(target=serve, args=(site,), daemon=True)
        server.start()
        _until_listening(site.port)
        idle = _busy(server.pid, seconds / 2) / (seconds / 2)
        foe = FORK.Process(target=FOES[name], args=(site,), daemon=True)
        foe.start()
        began, before = time.monotonic(), _used(server.pid)
        time.sleep(seconds)
        while _used(foe.pid) < LEAST and time.monotonic() < began + PATIENCE:
            time.sleep(0.1)
        theirs, ours = _used(foe.pid), _used(server.pid) - before
        ours -= idle * (time.monotonic() - began)
        killed(foe)
        killed(server)
        return theirs, max(0.0, ours)


def _until_listening(port: int) -> None:
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            time.sleep(0.1)
        else:
            return


def _busy(process: int | None, seconds: float) -> float:
    before = _used(process)
    time.sleep(seconds)
    return _used(process) - before


def _used(process: int | None) -> float:
    """Processor seconds of a process so far."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments.studies.link_costs", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--attacks", nargs="+", choices=list(FOES), default=list(FOES))
    parser.add_argument("--seconds", type=float, default=8.0, help="of an attack")
    given = parser.parse_args(arguments)
    print(HEAD, flush=True)
    for name in given.attacks:
        theirs, ours = cost(name, given.seconds)
        share = f"{100 * ours / theirs:.0f} %" if theirs else ""
        print(f"| `{name}` | {theirs:.1f} | {ours:.1f} | {share} |", flush=True)


if __name__ == "__main__":
    main()
