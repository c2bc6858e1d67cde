"""Figures of a running link for Prometheus."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from experiments.web import OWN_NAMES
from recast_core.errors import RecastError
from server.link.sessions import Sessions

# For a reader to say what it wants, and to take it.
_SECONDS = 10


class LinkCollector:
    """Reads the sessions when it is asked, and never in between."""

    def __init__(self, sessions: Sessions) -> None:
        self._sessions = sessions

    def collect(self) -> Iterator[Any]:
        """The metric families."""
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

        found = self._sessions.all()
        connected = sum(session.stream is not None for session in found)
        yield GaugeMetricFamily("recast_clients_connected", "Clients with a stream", connected)
        yield GaugeMetricFamily("recast_clients_known", "Clients that ever joined", len(found))
        yield GaugeMetricFamily(
            "recast_messages_open",
            "Messages that wait for an answer",
            sum(len(session.open) for session in found),
        )
        frames = CounterMetricFamily(
            "recast_frame_bytes", "Bytes of frames, without HTTP/2 and TLS", labels=["direction"]
        )
        frames.add_metric(["up"], sum(session.up for session in found))
        frames.add_metric(["down"], sum(session.down for session in found))
        yield frames
        refused = CounterMetricFamily("recast_refused", "What was refused", labels=["reason"])
        for reason, count in dict(self._sessions.refused).items():
            refused.add_metric([reason], count)
        yield refused


class _Server(ThreadingMixIn, WSGIServer):
    """Answers each reader in a thread, so that one that is slow keeps nobody else waiting."""

    daemon_threads = True


class _Handler(WSGIRequestHandler):
    """Keeps readers out of the server's log."""

    timeout = _SECONDS

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


def _of_this_machine(app: Callable[..., Iterable[bytes]]) -> Callable[..., Iterable[bytes]]:
    """Answer only those who ask for this machine by a name of its own.

    A page in a browser on this machine can have a name of its author's lead here, and would read
    what comes; its browser says that name.
    """

    def guarded(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        host = re.sub(r":\d*$", "", environ.get("HTTP_HOST", ""))
        if host.lower() in OWN_NAMES:
            return app(environ, start_response)
        start_response("400 Bad Request", [("Content-Type", "text/plain")])
        return [b"Ask for 127.0.0.1 or localhost.\n"]

    return guarded


@contextmanager
def serve_metrics(port: int, sessions: Sessions) -> Iterator[None]:
    """Serve the figures at ``http://127.0.0.1:PORT/metrics``.

    Raises:
        RecastError: prometheus-client is not installed, or the port is taken or none.
    """
    try:
        from prometheus_client import CollectorRegistry, make_wsgi_app
    except ImportError as error:
        raise RecastError(
            "--metrics needs prometheus-client: `pip install 'recast-fl[metrics]'`"
        ) from error
    registry = CollectorRegistry()
    registry.register(LinkCollector(sessions))
    app = _of_this_machine(make_wsgi_app(registry))
    try:
        server = make_server("127.0.0.1", port, app, _Server, _Handler)
    except (OSError, OverflowError) as error:
        raise RecastError(f"--metrics {port}: {error}; choose a free port") from error
    thread = threading.Thread(target=server.serve_forever, name="recast-metrics", daemon=True)
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
