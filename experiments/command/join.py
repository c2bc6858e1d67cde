"""``recast join``: this machine as a client of a federation over the lean link."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
import signal
import sys
from pathlib import Path

from client.app import app
from client.link import ClientKeys, Endpoint, LinkClient
from experiments.command.link_log import check_insecure, set_up
from protos.link import is_name
from recast_core.errors import RecastError
from recast_core.settings import Settings, Value

logger = logging.getLogger("recast.link")


def join(
    server: str,
    data: Path,
    name: str,
    *,
    cache: Path | None,
    certs: Path,
    number: int | None,
    backbone: str | None,
    device: str,
    skip_unreadable: bool = False,
    insecure: bool,
    force_insecure: bool,
    keepalive: float,
    json_log: bool,
) -> int:
    """Take part until the run is finished; returns the exit code.

    Raises:
        RecastError: what the user can mend, or the server's refusal.
    """
    if not is_name(name):
        raise RecastError(f"{name!r} is no name: use up to 64 letters, digits, dots and dashes")
    if not data.is_dir():
        raise RecastError(f"no folder {data}: name the one with this client's tasks with --data")
    Settings(device=device)
    keys = None
    if insecure:
        check_insecure(server, forced=force_insecure)
    else:
        keys = ClientKeys.load(certs, name)
    endpoint = Endpoint(server, keys, keepalive)
    set_up(as_json=json_log)
    folder = cache or _default_cache()
    node_config: dict[str, Value] = {
        "data-dir": str(data),
        "cache-dir": str(folder),
        "client-number": number_of(name) if number is None else number,
    }
    if backbone is not None:
        node_config["backbone"] = backbone
    if skip_unreadable:
        node_config["skip-unreadable"] = True
    client = LinkClient(
        endpoint,
        name,
        app,
        node_config,
        folder,
        overrides={"device": device},
        heard=lambda event: logger.info("%s", event),
    )
    stopped = asyncio.run(_until_stopped(client))
    logger.info("stopped" if stopped else "the run is finished")
    if client.busy:
        # A training cannot be interrupted, and nobody is left to take its answer.
        logging.shutdown()
        sys.stderr.flush()
        os._exit(0)
    return 0


def number_of(name: str) -> int:
    """The client number that follows from a name where none is given."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "big")


async def _until_stopped(client: LinkClient) -> bool:
    """Run the client; ``True`` if a signal ended it."""
    work = asyncio.ensure_future(client.run())
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, work.cancel)
    try:
        await work
    except asyncio.CancelledError:
        return True
    return False


def _default_cache() -> Path:
    root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(root) / "recast" / "banks"
