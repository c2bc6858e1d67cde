"""How a client gets to a broker, and how it proves to the server who it is."""

from __future__ import annotations

import ssl
from dataclasses import dataclass

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from client.link.channel import ClientKeys
from protos import link_v1_pb2 as link
from protos.mqtt import BrokerUrl, signed_part
from protos.mqtt_broker import Broker, Heard, Login, Lost, Will


@dataclass(frozen=True)
class ClientAccess:
    """Where the broker is, and what to show there.

    Attributes:
        url: of the broker.
        keys: this client's certificate; ``None`` where the broker has passwords, or asks nobody.
        password: where it has.
        tls: ``None`` for plain text.
        keepalive: seconds of silence after which a ping says that this client is there.
    """

    url: BrokerUrl
    keys: ClientKeys | None = None
    password: str | None = None
    tls: ssl.SSLContext | None = None
    keepalive: float = 240.0

    def broker(self, name: str, will: Will, heard: Heard, lost: Lost) -> Broker:
        """A connection, not made yet."""
        certificate = f"{self.keys.name}.pem" if self.keys and self.tls else ""
        user = None if certificate else self.url.user or name
        login = Login(
            self.url,
            f"{self.url.base}-{name}",
            user,
            self.password,
            self.tls,
            certificate,
            self.keepalive,
        )
        return Broker(login, will, heard, lost)

    def sign(self, name: str, join: link.Join, serving: int) -> None:
        """Add this client's certificate, and a signature for the server process ``serving``."""
        if self.keys is None:
            return
        key = serialization.load_pem_private_key(self.keys.key, None)
        certificate = x509.load_pem_x509_certificate(self.keys.certificate)
        if isinstance(key, ec.EllipticCurvePrivateKey):
            join.certificate = certificate.public_bytes(serialization.Encoding.DER)
            signed = signed_part(name, join, serving)
            join.signature = key.sign(signed, ec.ECDSA(hashes.SHA256()))
