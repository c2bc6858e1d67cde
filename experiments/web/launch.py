"""Start the live page beside a server, keep telling it how things stand, and end it."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import logging
import os
import secrets
import selectors
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from experiments.command.link_log import address_of
from experiments.command.program import environment
from recast_core.errors import RecastError

logger = logging.getLogger("recast.link")
SECONDS = 1.0
_START_SECONDS = 600.0
# Much more than its readers are given to see how the run ended; only one that hangs takes as long.
_END_SECONDS = 120.0
_TOKEN = "RECAST_PAGE_TOKEN"


@contextmanager
def live_page(
    address: str, token: str | None, registry: Path, state: Callable[[], dict[str, Any]]
) -> Iterator[str]:
    """Serve the page of a registry at ``HOST:PORT`` from a process of its own; yields its address.

    Args:
        address: where; anywhere but on this machine a token is asked for, given or made.
        token: that a reader must give, ``None`` for none or a made one.
        registry: which need not be there yet.
        state: of the server; called every second in a thread.

    Raises:
        RecastError: no ``HOST:PORT``, a package is missing, or the port is taken.
    """
    where = address_of(address)
    for package in ("starlette", "uvicorn", "vl_convert"):
        if importlib.util.find_spec(package) is None:
            raise RecastError(f"--web needs {package}: `pip install 'recast-fl[web]'`")
    if token is None and not where.is_loopback:
        token = secrets.token_urlsafe(24)
    own = {**os.environ, **environment(), **({_TOKEN: token} if token else {})}
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "experiments.web", str(registry.absolute()), where.host,
         str(where.port)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=own,
    )  # fmt: skip
    stop = threading.Event()
    teller = threading.Thread(target=_tell, args=(process, state, stop), daemon=True)
    try:
        port = _ready(process, address)
        host = f"[{where.host}]" if ":" in where.host else where.host
        url = f"http://{host}:{port}/" + (f"?token={token}" if token else "")
        logger.info("live page at %s", url)
        teller.start()
        yield url
    finally:
        stop.set()
        if teller.is_alive():
            teller.join(_END_SECONDS)
        _end(process)


def _tell(
    process: subprocess.Popen[str], state: Callable[[], dict[str, Any]], stop: threading.Event
) -> None:
    """Send the state every second, and as it is at the end.

    A page that has died is missed by nobody but its readers.
    """
    assert process.stdin is not None
    last = False
    while not last:
        last = stop.wait(SECONDS)
        try:
            process.stdin.write(json.dumps(state()) + "\n")
            process.stdin.flush()
        except (OSError, ValueError):
            if not last:
                logger.warning("the live page has ended; the run goes on without it")
            return


def _ready(process: subprocess.Popen[str], address: str) -> int:
    assert process.stdout is not None
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        line = process.stdout.readline() if selector.select(_START_SECONDS) else ""
    word, _, rest = line.strip().partition(" ")
    if word == "ready":
        return int(rest)
    cause = rest or f"it ended with code {process.poll()}"
    raise RecastError(f"--web {address}: {cause}; choose an address of this machine, a free port")


def _end(process: subprocess.Popen[str]) -> None:
    with contextlib.suppress(OSError):
        assert process.stdin is not None
        process.stdin.close()
    try:
        process.wait(_END_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    assert process.stdout is not None
    process.stdout.close()
