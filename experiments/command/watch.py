"""The live page of any run, from what its server leaves in the run's folder."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path
from typing import Any

from experiments.command.working import clock
from experiments.report.data import find_registry
from experiments.report.names import client_labels
from experiments.web.launch import live_page
from recast_core.errors import RecastError
from recast_core.files import read_bytes
from server.exchange.standing import NAME
from server.record.losses import latest_losses
from server.record.registry import Registry

# A server that has written nothing for so long is between rounds, or has ended.
QUIET_SECONDS = 30.0
_UNTOLD = (
    "Who is connected is not known here: this run's server does not write it down. A server of "
    "recast serve shows it on its own page (--web)."
)


def watch(run: Path | None, address: str, token: str | None) -> None:
    """Serve the page until the process is told to end.

    Raises:
        RecastError: no run there, or an address that cannot be served at.
        KeyboardInterrupt: Ctrl-C; its text says what is left.
    """
    registry = find_registry(run)
    with live_page(address, token, registry, lambda: standing(registry)) as url:
        try:
            print(f"live page of {registry.parent} at {url} (Ctrl-C ends it)", flush=True)
            threading.Event().wait()
        except KeyboardInterrupt:
            raise KeyboardInterrupt("the page has ended, the run is as it was") from None


def standing(registry: Path, now: float | None = None) -> dict[str, Any]:
    """What the page shows beside the report: what goes on, and each client's state.

    Args:
        registry: of the run.
        now: seconds since 1970.
    """
    now = time.time() if now is None else now
    try:
        with Registry(registry, read_only=True) as book:
            entry = book.last_run()
            if entry is None:
                return {}
            names = client_labels(book, entry.id)
            losses = latest_losses(book, entry.id)
            done = sum(book.last_rounds(entry.id).values())
    except RecastError:
        return {}
    what = f"{entry.status}, {done} rounds recorded"
    try:
        told = json.loads(read_bytes(registry.parent / NAME))
        clients, at = dict(told["clients"]), float(told["at"])
    except (OSError, ValueError, KeyError, TypeError):
        return {"now": what, "clients": [], "up": 0, "down": 0, "note": _UNTOLD}
    quiet = now - at
    if quiet > QUIET_SECONDS and entry.status == "running":
        what += f"; the server has said nothing for {clock(quiet)}"
    rows = [
        {
            "name": names.get(node, f"client {place}"),
            "state": one["state"],
            "up": one["up"],
            "down": one["down"],
            "heard": "never" if one["heard"] is None else f"{clock(now - one['heard'])} ago",
            "loss": losses.get(node),
        }
        for place, (node, one) in enumerate(clients.items(), start=1)
    ]
    up, down = (sum(row[way] for row in rows) for way in ("up", "down"))
    return {"now": what, "clients": rows, "up": up, "down": down}
