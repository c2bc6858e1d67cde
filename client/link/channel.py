"""Connections to the server."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import grpc
import grpc.aio
from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from grpc.experimental import session_cache

from client.link.diagnosis import Fault, diagnose, proxy_in_force
from protos.link import CHANNEL_OPTIONS, is_for_clients, out_of_date
from protos.link_address import Address
from recast_core.errors import RecastError
from recast_core.files import read_bytes

KEEPALIVE_TIMEOUT_MS = 20_000


@dataclass(frozen=True)
class ClientKeys:
    """A client's certificate, in PEM.

    Attributes:
        name: the file name that the certificate goes by, which is its common name.
        key: the private key.
        certificate: signed by the authority.
        authority: certificate of the authority that signs the server.
    """

    name: str
    key: bytes
    certificate: bytes
    authority: bytes

    @classmethod
    def load(cls, folder: Path, name: str) -> ClientKeys:
        """The keys of client ``name`` that ``recast certs`` made.

        Raises:
            RecastError: a file is missing.
        """
        try:
            keys = cls(
                name,
                key=read_bytes(folder / f"{name}.key"),
                certificate=read_bytes(folder / f"{name}.pem"),
                authority=read_bytes(folder / "ca.pem"),
            )
            # A clock that is wrong now may be right in a minute; a file that is no certificate not.
            doubt = keys._doubt()
        except (OSError, ValueError, TypeError, UnsupportedAlgorithm) as error:
            raise RecastError(
                f"no certificate for {name!r} ({error}): make one with `recast certs add "
                f"{folder} {name}`, or copy ca.pem, {name}.pem and {name}.key there"
            ) from error
        if doubt is not None:
            raise RecastError(
                f"{folder}: {doubt}; copy ca.pem, {name}.pem and {name}.key of one federation there"
            )
        return keys

    def _doubt(self) -> str | None:
        """What keeps any server from accepting these files together."""
        own = x509.load_pem_x509_certificate(self.certificate)
        authority = x509.load_pem_x509_certificate(self.authority)
        key = serialization.load_pem_private_key(self.key, None)
        if key.public_key() != own.public_key():
            return f"{self.name}.key is not the key of {self.name}.pem"
        try:
            own.verify_directly_issued_by(authority)
        except (ValueError, TypeError, InvalidSignature):
            return f"{self.name}.pem is not signed by the authority in ca.pem"
        if not is_for_clients(own):
            return f"{self.name}.pem is not made for clients"
        return None


class Endpoint:
    """A server to connect to, again and again, resuming the TLS session where it can be."""

    def __init__(self, target: str, keys: ClientKeys | None, keepalive: float = 240.0) -> None:
        """Remember ``target`` (``HOST:PORT``); nothing is sent yet.

        Args:
            target: the server.
            keys: ``None`` for no TLS.
            keepalive: seconds of silence after which the server is asked whether it is there.

        Raises:
            RecastError: ``target`` is no ``HOST:PORT``.
        """
        try:
            self.address = Address.parse(target)
        except ValueError as error:
            raise RecastError(str(error)) from error
        if not self.address.port:
            raise RecastError(f"{target!r}: 0 is no port to join; give the server's")
        self.target = str(self.address)
        self._keys = keys
        self._credentials = None if keys is None else _credentials(keys)
        self._cache: object = session_cache.ssl_session_cache_lru(1)  # type: ignore[no-untyped-call]
        self._options: list[tuple[str, object]] = [
            *CHANNEL_OPTIONS,
            # A shared pool would remember failures of the channel before and wait by itself.
            ("grpc.use_local_subchannel_pool", 1),
            ("grpc.keepalive_time_ms", int(1000 * keepalive)),
            ("grpc.keepalive_timeout_ms", KEEPALIVE_TIMEOUT_MS),
            ("grpc.http2.max_pings_without_data", 0),
            ("grpc.ssl_session_cache", self._cache),
            ("grpc.enable_http_proxy", int(proxy_in_force(self.address) is not None)),
        ]

    def claim(self, name: str) -> str:
        """What to say of one's name: nothing where the certificate says it."""
        return name if self._credentials is None else ""

    def doubt(self) -> str | None:
        """What may keep TLS from working that this machine can see for itself."""
        if self._keys is None:
            return None
        return out_of_date(
            {f"{self._keys.name}.pem": self._keys.certificate, "ca.pem": self._keys.authority}
        )

    def diagnose(self) -> Fault | None:
        """What keeps a connection from being made, looked for with one; blocks for seconds."""
        return diagnose(self.address, None if self._keys is None else self._keys.authority)

    def connect(self) -> grpc.aio.Channel:
        """A new channel."""
        if self._credentials is None:
            return grpc.aio.insecure_channel(self.target, options=self._options)
        return grpc.aio.secure_channel(self.target, self._credentials, options=self._options)


def _credentials(keys: ClientKeys) -> grpc.ChannelCredentials:
    return grpc.ssl_channel_credentials(keys.authority, keys.key, keys.certificate)
