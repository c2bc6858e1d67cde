"""Who is at the other end of a stream, and whether the federation still wants to hear from them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from functools import lru_cache

from cryptography import x509

from protos.link import is_for_clients, is_name


class DeniedError(ValueError):
    """A peer that may not speak; the text is for that peer.

    Attributes:
        name: of the client that its certificate proves it to be, where there is one.
        retry: whether it may ask again.
    """

    def __init__(self, text: str, name: str | None = None, *, retry: bool = False) -> None:
        super().__init__(text)
        self.name = name
        self.retry = retry


def node_id(name: str) -> int:
    """The Flower node id of a client, the same after any restart: 63 bits of its name's hash."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") >> 1 or 1


def certified(auth: Mapping[str, Iterable[bytes]]) -> tuple[str, int]:
    """The name and serial number of the peer's certificate, from gRPC's authentication context.

    Raises:
        DeniedError: no certificate, one that is not for clients, or one whose common name cannot
            be a client's.
    """
    pem = next(iter(auth.get("x509_pem_cert", ())), None)
    if pem is None:
        raise DeniedError("no client certificate came: join with one made by `recast certs add`")
    return _read(pem)


@lru_cache(maxsize=1024)
def _read(pem: bytes) -> tuple[str, int]:
    certificate = x509.load_pem_x509_certificate(pem)
    names = certificate.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)
    name = str(names[0].value) if len(names) == 1 else ""
    if not is_name(name):
        raise DeniedError("the certificate's common name is no client's name")
    if not is_for_clients(certificate):
        raise DeniedError(f"the certificate of {name} is not made for clients", name)
    return name, certificate.serial_number
