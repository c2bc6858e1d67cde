"""What both ends of MQTT agree on besides the link's frames: where they are, and who signs a Join.

Topics, below a first word of the federation's own (``recast``):

- ``recast/all/s``: how things stand with the server, retained;
- ``recast/all/N``: what is published once for many, each N retained until the next;
- ``recast/down/NAME``: frames for one client;
- ``recast/up/NAME``: frames of one client, which nobody else may write;
- ``recast/body/SHA256/N``: a large body in chunks, retained.
"""

from __future__ import annotations

import re
import ssl
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from protos import link_v1_pb2 as link
from protos.link_address import Address

PORTS = {"mqtt": 1883, "mqtts": 8883}
# The server's name with the broker, where its URL gives no other.
SERVER = "serve"
PASSWORD = "RECAST_MQTT_PASSWORD"
BODY_CHUNK = 1 << 14
# Numbers, a name, a certificate and a signature.
MAX_JOIN = 4096
_BASE = re.compile(r"[A-Za-z0-9_-]{1,64}(/[A-Za-z0-9_-]{1,64}){0,7}")
_SIGNED = b"recast join through a broker, 1\0"


@dataclass(frozen=True)
class BrokerUrl:
    """Where a broker is.

    Attributes:
        address: host and port.
        secure: with TLS.
        user: whom to be there; empty where the URL does not say.
        base: the first words of every topic.
    """

    address: Address
    secure: bool
    user: str
    base: str

    def __str__(self) -> str:
        user = f"{self.user}@" if self.user else ""
        return f"{'mqtts' if self.secure else 'mqtt'}://{user}{self.address}/{self.base}"

    @classmethod
    def parse(cls, text: str) -> BrokerUrl:
        """Read ``mqtts://[USER@]HOST[:PORT][/BASE]``.

        Raises:
            ValueError: it is none; the text says what is wrong and what to write.
        """
        try:
            parts = urlsplit(text)
            password = parts.password
        except ValueError as error:
            raise ValueError(f"{text[:80]!r}: {error}; give mqtts://HOST:8883") from error
        if parts.scheme not in PORTS:
            raise ValueError(f"{text[:80]!r} is no broker: give mqtts://HOST:8883, or mqtt://")
        if password is not None:
            raise ValueError(
                f"a password in a URL is seen by everybody on this machine: put it in {PASSWORD}"
            )
        if "?" in text or "#" in text:
            raise ValueError(f"{text[:80]!r}: leave out what follows the path")
        place = parts.netloc.rpartition("@")[2]
        if not re.search(r":[0-9]*$", place):
            place = f"{place}:{PORTS[parts.scheme]}"
        base = parts.path.strip("/") or "recast"
        if not _BASE.fullmatch(base):
            raise ValueError(f"{base[:80]!r} is no topic: use letters, digits, dashes and slashes")
        user = unquote(parts.username or "")
        return cls(Address.parse(place), parts.scheme == "mqtts", user, base)


@dataclass(frozen=True)
class Topics:
    """The topics of one federation."""

    base: str

    @property
    def serving(self) -> str:
        """How things stand with the server."""
        return f"{self.base}/all/s"

    @property
    def everything(self) -> str:
        """A filter for what concerns all."""
        return f"{self.base}/all/+"

    @property
    def every_up(self) -> str:
        """A filter for what clients say."""
        return f"{self.base}/up/+"

    def all(self, slot: int) -> str:
        """What is published once for many."""
        return f"{self.base}/all/{slot}"

    def down(self, name: str) -> str:
        """For one client."""
        return f"{self.base}/down/{name}"

    def up(self, name: str) -> str:
        """Of one client."""
        return f"{self.base}/up/{name}"

    def body(self, sha256: bytes, chunk: int) -> str:
        """A part of a large body."""
        return f"{self.base}/body/{sha256[:8].hex()}/{chunk}"


def signed_part(name: str, join: link.Join, serving: int) -> bytes:
    """What a client signs of its Join: who, to which server process, and which of its joins."""
    numbers = (serving, join.session, join.received, join.instance, join.attempt, join.connection)
    return _SIGNED + name.encode() + b"\0" + b"".join(n.to_bytes(4, "big") for n in numbers)


def tls_context(
    authority: Path | None, certificate: Path | None = None, key: Path | None = None
) -> ssl.SSLContext:
    """TLS to a broker.

    Args:
        authority: that signed the broker; ``None`` for those that this machine trusts.
        certificate: of this end; ``None`` for none.
        key: of the certificate.

    Raises:
        OSError: a file cannot be read, or is none of these (``ssl.SSLError``).
    """
    context = ssl.create_default_context(cafile=None if authority is None else str(authority))
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if certificate is not None:
        context.load_cert_chain(certificate, key)
    return context
