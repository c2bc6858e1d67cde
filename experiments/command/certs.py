"""``recast certs``: a private authority and certificates for one federation."""

from __future__ import annotations

import datetime
import ipaddress
import os
import secrets
from collections.abc import Sequence
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from experiments.command.issued import add_revoked, issued, note_issued, revoked
from protos.link import is_name
from recast_core.errors import RecastError
from recast_core.files import read_bytes, write_atomically
from server.link.revocations import parse_revocations

AUTHORITY_DAYS = 3650
SERVER_DAYS = 825
CLIENT_DAYS = 825
# What clients and server would take for their own.
RESERVED = {"ca", "server"}


def init(folder: Path, hosts: Sequence[str], names: Sequence[str], *, force: bool) -> list[Path]:
    """Make an authority, the server's certificate and those of clients; returns what was written.

    Args:
        folder: for ``ca.pem``, ``ca.key``, ``server.*`` and ``NAME.*``.
        hosts: names and addresses that clients will call the server by.
        names: clients.
        force: replace what is there.

    Raises:
        RecastError: a name that cannot be one, no host, or files that exist.
    """
    if not hosts:
        raise RecastError("no host for the server's certificate: give --server HOST, or several")
    alternatives = x509.SubjectAlternativeName([_alternative(host) for host in hosts])
    for name in names:
        _check_name(name)
    stems = ["ca", "server", *names]
    _check_absent(folder, stems, force=force)
    key = ec.generate_private_key(ec.SECP256R1())
    subject = _subject("recast")
    identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    authority = (
        _builder(subject, subject, key.public_key(), AUTHORITY_DAYS)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs=True), critical=True)
        .add_extension(identifier, critical=False)
        .sign(key, hashes.SHA256())
    )
    written = _write(folder, "ca", key, authority)
    own = ec.generate_private_key(ec.SECP256R1())
    server = (
        _leaf(own, "recast server", ExtendedKeyUsageOID.SERVER_AUTH, authority, SERVER_DAYS)
        .add_extension(alternatives, critical=False)
        .sign(key, hashes.SHA256())
    )
    written += _write(folder, "server", own, server)
    for name in names:
        written += _issue(folder, name, key, authority)
    add_revoked(folder, "", [])
    return written


def add(folder: Path, name: str, *, force: bool) -> list[Path]:
    """Make one more client's certificate, and revoke those it replaces; returns what was written.

    Raises:
        RecastError: no authority in ``folder``, a name that cannot be one, or files that exist.
    """
    _check_name(name)
    _check_absent(folder, [name], force=force)
    authority_key, authority = _authority(folder)
    # Whoever has a key that is replaced may be the reason why it is.
    add_revoked(folder, name, _serials(folder, name))
    return _issue(folder, name, authority_key, authority)


def revoke(folder: Path, name: str, serial: str | None = None) -> Path:
    """Add a client's certificates to ``revoked.txt``, which a running server reads again.

    Args:
        folder: with the list.
        name: the client; every certificate that it was ever given is revoked.
        serial: of the one certificate to revoke, hexadecimal; also one made elsewhere.

    Raises:
        RecastError: there is no certificate of that name, or no such number.
    """
    _check_name(name)
    if serial is not None:
        try:
            serials = sorted(parse_revocations([serial]))
        except ValueError as error:
            raise RecastError(f"{serial!r} is no serial number: give it in hexadecimal") from error
    else:
        serials = _serials(folder, name)
    if not serials:
        raise RecastError(
            f"no certificate of {name!r} in {folder}: name a client's, or give its --serial"
        )
    return add_revoked(folder, name, serials)


def overview(folder: Path) -> list[str]:
    """A line for each certificate that was ever issued in ``folder``."""
    gone = revoked(folder)
    return [
        f"{entry.serial:x} {entry.name} {entry.day} {'revoked' if entry.serial in gone else 'good'}"
        for entry in issued(folder)
    ]


def _issue(
    folder: Path, name: str, authority_key: ec.EllipticCurvePrivateKey, authority: x509.Certificate
) -> list[Path]:
    key = ec.generate_private_key(ec.SECP256R1())
    certificate = _leaf(key, name, ExtendedKeyUsageOID.CLIENT_AUTH, authority, CLIENT_DAYS).sign(
        authority_key, hashes.SHA256()
    )
    note_issued(folder, name, certificate.serial_number)
    return _write(folder, name, key, certificate)


def _serials(folder: Path, name: str) -> list[int]:
    return [entry.serial for entry in issued(folder) if entry.name == name]


def _authority(folder: Path) -> tuple[ec.EllipticCurvePrivateKey, x509.Certificate]:
    try:
        key = serialization.load_pem_private_key(read_bytes(folder / "ca.key"), None)
        certificate = x509.load_pem_x509_certificate(read_bytes(folder / "ca.pem"))
    except (OSError, ValueError, TypeError) as error:
        raise RecastError(
            f"no authority in {folder} ({error}): make one with `recast certs init {folder} "
            "--server HOST`, or go where ca.key is kept"
        ) from error
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise RecastError(f"{folder / 'ca.key'} is no elliptic-curve key: use recast's own")
    return key, certificate


def _leaf(
    key: ec.EllipticCurvePrivateKey,
    name: str,
    purpose: x509.ObjectIdentifier,
    authority: x509.Certificate,
    days: int,
) -> x509.CertificateBuilder:
    # Nothing that could be left out: in TLS 1.3 each connection carries a client's certificate
    # three times, in the ticket that resumes the session and in the two that it gets for the next.
    return _builder(_subject(name), authority.subject, key.public_key(), days).add_extension(
        x509.ExtendedKeyUsage([purpose]), critical=False
    )


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, days: int
) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(secrets.randbits(47) | 1)
        # Clocks at the edge run late.
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=days))
    )


def _usage(*, signs: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs,
        crl_sign=signs,
        encipher_only=False,
        decipher_only=False,
    )


def _subject(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _alternative(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host.strip("[]")))
    except ValueError:
        pass
    if not host.isascii() or not host or any(letter in host for letter in ":/@ "):
        raise RecastError(f"{host!r} is no host name: give names or addresses without a port")
    return x509.DNSName(host)


def _check_name(name: str) -> None:
    if not is_name(name) or name in RESERVED:
        raise RecastError(
            f"{name!r} cannot be a client's name: use up to 64 letters, digits, dots and dashes"
        )


def _check_absent(folder: Path, stems: Sequence[str], *, force: bool) -> None:
    there = [stem for stem in stems if (folder / f"{stem}.key").exists()]
    if there and not force:
        raise RecastError(
            f"{folder / there[0]}.key exists: use another folder, or --force to replace it (what "
            "it signed or identified will be refused)"
        )


def _write(
    folder: Path, stem: str, key: ec.EllipticCurvePrivateKey, certificate: x509.Certificate
) -> list[Path]:
    text = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    paths = [folder / f"{stem}.key", folder / f"{stem}.pem"]
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        _write_private(paths[0], text)
        write_atomically(paths[1], certificate.public_bytes(serialization.Encoding.PEM))
    except OSError as error:
        raise RecastError(f"cannot write {paths[0]} ({error}): name another folder") from error
    return paths


def _write_private(path: Path, content: bytes) -> None:
    """A file that nobody else could read at any moment."""
    made = path.with_name(f".{path.name}.{os.getpid()}")
    made.unlink(missing_ok=True)
    with open(os.open(made, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:  # noqa: PTH123
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    os.replace(made, path)
