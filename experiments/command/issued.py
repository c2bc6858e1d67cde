"""Every certificate that was ever issued to a client's name, and which of them are revoked."""

from __future__ import annotations

import datetime
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509

from recast_core.errors import RecastError
from recast_core.files import read_bytes, read_text, write_atomically
from server.link.revocations import parse_revocations

ISSUED = "issued.txt"
REVOKED = "revoked.txt"


@dataclass(frozen=True)
class Issued:
    """A certificate: its serial number, the name that it says, the day when it was made."""

    serial: int
    name: str
    day: str


def issued(folder: Path) -> list[Issued]:
    """The certificates that were issued in ``folder``, oldest first, and those that lie there.

    Raises:
        RecastError: the list of them cannot be read.
    """
    found = {}
    for line in _lines(folder / ISSUED):
        serial, _, about = line.partition("#")
        name, _, day = about.partition(",")
        try:
            entry = Issued(int(serial, 16), name.strip(), day.strip())
        except ValueError as error:
            raise RecastError(f"{folder / ISSUED}: {error}; restore the file") from error
        found[entry.serial] = entry
    # Those made before there was a list.
    for path in sorted(folder.glob("*.pem")):
        if path.stem not in ("ca", "server"):
            try:
                certificate = x509.load_pem_x509_certificate(read_bytes(path))
            except (OSError, ValueError):
                continue
            day = f"{certificate.not_valid_before_utc:%Y-%m-%d}"
            serial_number = certificate.serial_number
            found.setdefault(serial_number, Issued(serial_number, path.stem, day))
    return list(found.values())


def note_issued(folder: Path, name: str, serial: int) -> None:
    """Remember a certificate, before anybody is given it."""
    known = {entry.serial: entry for entry in issued(folder)}
    known[serial] = Issued(serial, name, _today())
    lines = [f"{entry.serial:x} # {entry.name}, {entry.day}\n" for entry in known.values()]
    write_atomically(folder / ISSUED, "".join(lines).encode())


def revoked(folder: Path) -> frozenset[int]:
    """The serial numbers that are revoked.

    Raises:
        RecastError: the list of them cannot be read.
    """
    try:
        return parse_revocations(_lines(folder / REVOKED))
    except ValueError as error:
        raise RecastError(f"{folder / REVOKED}: {error}; mend that line") from error


def add_revoked(folder: Path, name: str, serials: Iterable[int]) -> Path:
    """Add serial numbers to the list that a running server reads again; those on it stay once."""
    path = folder / REVOKED
    there = revoked(folder)
    new = [serial for serial in serials if serial not in there]
    if new or not path.exists():
        old = "".join(f"{line}\n" for line in _lines(path))
        lines = [f"{serial:x} # {name}, {_today()}\n" for serial in new]
        write_atomically(path, (old + "".join(lines)).encode())
    return path


def _lines(path: Path) -> list[str]:
    try:
        return read_text(path).splitlines()
    except FileNotFoundError:
        return []
    except (OSError, ValueError) as error:
        raise RecastError(f"cannot read {path}: {error}; restore the file") from error


def _today() -> str:
    return datetime.datetime.now(datetime.UTC).date().isoformat()
