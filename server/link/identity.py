"""Who is at the other end of a stream, and whether the federation still wants to hear from them."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterable, Mapping
from pathlib import Path

from cryptography import x509

from protos.link import is_name

logger = logging.getLogger("recast.link")


class DeniedError(ValueError):
    """A peer that may not speak; the text is for that peer.

    Attributes:
        name: of the client that its certificate proves it to be, where there is one.
    """

    def __init__(self, text: str, name: str | None = None) -> None:
        super().__init__(text)
        self.name = name


def node_id(name: str) -> int:
    """The Flower node id of a client, the same after any restart: 63 bits of its name's hash."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") >> 1 or 1


class Revocations:
    """The serial numbers in a file, one hexadecimal number at the start of each line.

    The file is read again whenever it changes. Where it cannot be read, the last list holds.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._stamp: tuple[int, int] | None = None
        self._serials: frozenset[int] = frozenset()

    def refresh(self) -> bool:
        """Read the file if it has changed; says whether the list is another one now."""
        if self._path is None:
            return False
        try:
            status = self._path.stat()
            stamp = status.st_mtime_ns, status.st_size
            if stamp == self._stamp:
                return False
            serials = parse_revocations(self._path.read_text().splitlines())
        except FileNotFoundError:
            return False
        except (OSError, ValueError) as error:
            logger.error("the list of revoked certificates stays as it was: %s", error)
            return False
        self._stamp = stamp
        changed = serials != self._serials
        self._serials = serials
        return changed

    def __contains__(self, serial: int | None) -> bool:
        return serial in self._serials


def parse_revocations(lines: Iterable[str]) -> frozenset[int]:
    """The serial numbers of a revocation list; empty lines and those after ``#`` say nothing.

    Raises:
        ValueError: a line that does not start with a hexadecimal number.
    """
    words = (line.partition("#")[0].split() for line in lines)
    return frozenset(int(word[0], 16) for word in words if word)


def certified(auth: Mapping[str, Iterable[bytes]]) -> tuple[str, int]:
    """The name and serial number of the peer's certificate, from gRPC's authentication context.

    Raises:
        DeniedError: no certificate, or one whose common name cannot be a client's.
    """
    pem = next(iter(auth.get("x509_pem_cert", ())), None)
    if pem is None:
        raise DeniedError("no client certificate came: join with one made by `recast certs add`")
    certificate = x509.load_pem_x509_certificate(pem)
    names = certificate.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)
    name = str(names[0].value) if len(names) == 1 else ""
    if not is_name(name):
        raise DeniedError("the certificate's common name is no client's name")
    return name, certificate.serial_number
