"""The process of the live page: ``python -m experiments.web REGISTRY HOST PORT``.

Its standard input brings the server's state, a line of JSON each; when that ends, so does it. The
token, where there is one, comes by the environment: a command line is anybody's to read.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
import sys
import threading
import time
from pathlib import Path

import uvicorn

from experiments.web import OWN_NAMES
from experiments.web.app import make_app
from experiments.web.source import Source

TOKEN = "RECAST_PAGE_TOKEN"
# For readers to fetch how the run ended and to draw it, beside the time that making the page takes:
# this process is the last to be given a busy processor.
SECONDS_TO_LEAVE = 10.0
_PAUSE = 0.1


def main(registry: str, host: str, port: str) -> None:
    """Serve the page until standard input ends and its readers have seen how things ended."""
    # Ctrl-C in the terminal is for the server, which ends this process when it is done.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with contextlib.suppress(OSError):
        os.nice(10)  # The run comes first.
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, int(port)))
        listener.listen(128)
    except OSError as error:
        print(f"error {error.strerror}", flush=True)
        return
    source, token = Source(Path(registry)), os.environ.get(TOKEN)
    hosts = ["*"] if token else OWN_NAMES
    app = make_app(source, token, hosts)
    config = uvicorn.Config(
        app, log_level="error", access_log=False, lifespan="off", timeout_graceful_shutdown=1
    )
    server = uvicorn.Server(config)
    # Another process ends this one; none of its signals are ours to take.
    server.install_signal_handlers = lambda: None  # type: ignore[attr-defined]

    def follow() -> None:
        source.follow(sys.stdin)
        left = SECONDS_TO_LEAVE
        while app.state.readers and left > 0:
            time.sleep(_PAUSE)
            if not app.state.making:
                left -= _PAUSE
        # Whoever is being answered is cut off, which is no fault to be told of.
        logging.getLogger("uvicorn.error").disabled = True
        server.should_exit = True

    threading.Thread(target=follow, daemon=True).start()
    print(f"ready {listener.getsockname()[1]}", flush=True)
    server.run(sockets=[listener])


if __name__ == "__main__":
    main(*sys.argv[1:])
