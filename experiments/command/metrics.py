"""Figures of a running link for Prometheus."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from recast_core.errors import RecastError
from server.link.sessions import Sessions


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


@contextmanager
def serve_metrics(port: int, sessions: Sessions) -> Iterator[None]:
    """Serve the figures at ``http://127.0.0.1:PORT/metrics``.

    Raises:
        RecastError: prometheus-client is not installed, or the port is taken.
    """
    try:
        from prometheus_client import CollectorRegistry, start_http_server
    except ImportError as error:
        raise RecastError(
            "--metrics needs prometheus-client: `pip install 'recast-fl[metrics]'`"
        ) from error
    registry = CollectorRegistry()
    registry.register(LinkCollector(sessions))
    try:
        server, thread = start_http_server(port, addr="127.0.0.1", registry=registry)
    except OSError as error:
        raise RecastError(f"--metrics {port}: {error}; choose a free port") from error
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
