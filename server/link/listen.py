"""The gRPC side of the link: an asyncio server in a thread of its own."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import grpc
import grpc.aio

from protos.link import CHANNEL_OPTIONS, MAX_FRAME, out_of_date
from recast_core.errors import RecastError
from recast_core.files import read_bytes
from server.link.doorkeeper import RESERVED_FILES, raise_file_limit
from server.link.limits import SECONDS_TO_JOIN
from server.link.revocations import check_list

T = TypeVar("T")
MESSAGE_LIMIT = "grpc.max_receive_message_length"
KEEPALIVE_TIMEOUT_MS = 20_000


@dataclass(frozen=True)
class ServerKeys:
    """A server's certificate, in PEM, and the files that decide who may join.

    Attributes:
        key: the server's private key.
        certificate: the server's certificate.
        authority: certificate of the authority that signs clients.
        revoked: a list of serial numbers that are refused; read again when it changes. Where it
            cannot be read, everybody is.
    """

    key: bytes
    certificate: bytes
    authority: bytes
    revoked: Path

    @classmethod
    def load(cls, folder: Path) -> ServerKeys:
        """The keys that ``recast certs`` left in ``folder``.

        Raises:
            RecastError: a file is missing or damaged, or not valid by this machine's clock, or the
                list of revoked certificates cannot be read.
        """
        try:
            keys = cls(
                key=read_bytes(folder / "server.key"),
                certificate=read_bytes(folder / "server.pem"),
                authority=read_bytes(folder / "ca.pem"),
                revoked=folder / "revoked.txt",
            )
        except OSError as error:
            raise RecastError(
                f"no server certificate ({error}): make one with `recast certs init {folder} "
                "--server HOST`, or name its folder with --certs"
            ) from error
        try:
            doubt = out_of_date({"server.pem": keys.certificate, "ca.pem": keys.authority})
        except ValueError as error:
            doubt = f"no certificate ({error}): make it again with `recast certs init`"
        if doubt is not None:
            raise RecastError(f"{folder}: {doubt}")
        check_list(keys.revoked)
        return keys

    def credentials(self) -> grpc.ServerCredentials:
        """Mutual TLS: clients without a certificate of the authority are refused."""
        return grpc.ssl_server_credentials(
            [(self.key, self.certificate)], self.authority, require_client_auth=True
        )


class Listener:
    """A gRPC server on an event loop in a daemon thread."""

    def __init__(
        self,
        address: str,
        keys: ServerKeys | None,
        handler: grpc.GenericRpcHandler,
        keepalive: float,
    ) -> None:
        """Listen at ``address`` (``HOST:PORT``, port 0 for any).

        Args:
            address: where.
            keys: ``None`` for no TLS.
            handler: serves the link's methods.
            keepalive: seconds of silence after which a client is asked whether it is there.

        Raises:
            RecastError: the address cannot be listened at, or the certificates do not fit.
        """
        self._address, self._keys, self._handler = address, keys, handler
        self._keepalive = keepalive
        self.connections = max(1, raise_file_limit() - RESERVED_FILES)
        self.closed = False
        self._beside: list[Future[None]] = []
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="recast-link", daemon=True)
        self._thread.start()
        try:
            self.port = self.call(self._start())
        except (RuntimeError, grpc.aio.AioRpcError, ValueError) as error:
            self._end()
            raise RecastError(
                f"cannot listen at {address}: choose a free port of this machine with --listen, "
                "and check the certificates"
            ) from error

    def call(self, work: Coroutine[Any, Any, T]) -> T:
        """Run ``work`` on the loop and wait for it."""
        return asyncio.run_coroutine_threadsafe(work, self.loop).result()

    def accompany(self, work: Coroutine[Any, Any, None]) -> None:
        """Run ``work`` on the loop until this is closed."""
        self._beside.append(asyncio.run_coroutine_threadsafe(work, self.loop))

    def close(self, grace: float) -> None:
        """Stop listening; streams that still run are cut after ``grace`` seconds."""
        self.closed = True
        self.call(self._server.stop(grace))
        for work in self._beside:
            work.cancel()
        self.call(asyncio.sleep(0))
        self._end()

    async def _start(self) -> int:
        milliseconds = int(1000 * self._keepalive)
        server = self._server = grpc.aio.server(
            options=[
                *(option for option in CHANNEL_OPTIONS if option[0] != MESSAGE_LIMIT),
                # A little more than is allowed, so that what is too large is counted.
                (MESSAGE_LIMIT, MAX_FRAME + 1024),
                # TLS keeps a buffer of this size for each connection: 16 KiB if it may choose.
                ("grpc.tsi.max_frame_size", 4096),
                ("grpc.server_handshake_timeout_ms", int(1000 * SECONDS_TO_JOIN)),
                ("grpc.max_connection_idle_ms", int(1000 * SECONDS_TO_JOIN)),
                ("grpc.max_allowed_incoming_connections", self.connections),
                # Two servers must not share a port.
                ("grpc.so_reuseport", 0),
                # Clients ask first, at their own interval; this finds those that can no longer.
                ("grpc.keepalive_time_ms", 2 * milliseconds),
                ("grpc.keepalive_timeout_ms", KEEPALIVE_TIMEOUT_MS),
                ("grpc.http2.max_pings_without_data", 0),
                ("grpc.http2.min_ping_interval_without_data_ms", 5000),
                ("grpc.max_concurrent_streams", 4),
            ]
        )
        server.add_generic_rpc_handlers((self._handler,))
        if self._keys is None:
            port = server.add_insecure_port(self._address)
        else:
            port = server.add_secure_port(self._address, self._keys.credentials())
        if port == 0:
            raise RuntimeError("not bound")
        await server.start()
        return port

    def _end(self) -> None:
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(5)

    def _run(self) -> None:
        asyncio.set_event_loop(self.loop)
        self.loop.run_forever()
