"""What both ends of the lean link agree on besides ``link_v1.proto``."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime

from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from protos import link_v1_pb2 as link

_SERVICE = link.DESCRIPTOR.services_by_name["Link"]
SERVICE = _SERVICE.full_name
TALK, FETCH = (_SERVICE.methods_by_name[name].name for name in ("Talk", "Fetch"))

# Larger bodies do not pass through the stream, where they would start over at every cut.
MAX_STREAM_BODY = 1 << 14
# An answer carries tens of bytes, or what a head is made of; whole models take other transports.
MAX_REPLY = 1 << 20
MAX_FRAME = MAX_REPLY + 64
# Numbers and a name.
MAX_JOIN = 256
CHUNK = 1 << 14

_FIELDS = {
    "train": "train",
    "evaluate": "evaluate",
    "query.hello": "hello",
    "query.bank": "bank",
}
_TYPES = {field: type_ for type_, field in _FIELDS.items()}
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")

# Both ends: nothing but what the application sends, and no guessing of the bandwidth.
CHANNEL_OPTIONS: tuple[tuple[str, int | str], ...] = (
    ("grpc.http2.bdp_probe", 0),
    ("grpc.http2.true_binary", 0),
    ("grpc.compression_enabled_algorithms_bitset", 1),
    ("grpc.max_receive_message_length", 4 * MAX_FRAME),
)


def is_name(text: str) -> bool:
    """Whether ``text`` can be a client's name: letters, digits, dots and dashes, 64 at most."""
    return _NAME.fullmatch(text) is not None


def pack(type_: str, body: bytes) -> link.FromServer:
    """The frame that carries a message of a Flower type, ``body`` as it is, yet without number."""
    frame = link.FromServer()
    field = _FIELDS.get(type_)
    if field is None:
        frame.other.type, frame.other.body = type_, body
    else:
        setattr(frame, field, body)
    return frame


def refer(type_: str, sha256: bytes, size: int) -> link.FromServer:
    """The frame that stands for a message whose body is fetched, yet without number."""
    return link.FromServer(reference=link.Reference(type=type_, sha256=sha256, size=size))


def unpack(frame: link.FromServer) -> tuple[str, bytes] | None:
    """Flower type and body of a message, or ``None`` for a frame that carries no body."""
    which = frame.WhichOneof("body")
    if which == "other":
        return frame.other.type, frame.other.body
    if which in _TYPES:
        return _TYPES[which], getattr(frame, which)
    return None


def issued_by(der: bytes, authority: x509.Certificate) -> x509.Certificate:
    """The certificate that somebody sends, if the authority has issued it.

    Raises:
        ValueError: it is none, or another's.
    """
    try:
        certificate = x509.load_der_x509_certificate(der)
        certificate.verify_directly_issued_by(authority)
    except Exception as error:  # of many kinds: an odd version's, say, is no ValueError
        raise ValueError(f"no certificate of the authority: {error}") from error
    return certificate


def is_for_clients(certificate: x509.Certificate) -> bool:
    """Whether a certificate says that it identifies a client, and is no authority's."""
    extensions = certificate.extensions
    try:
        purposes = extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except x509.ExtensionNotFound:
        return False
    try:
        if extensions.get_extension_for_class(x509.BasicConstraints).value.ca:
            return False
    except x509.ExtensionNotFound:
        pass
    return ExtendedKeyUsageOID.CLIENT_AUTH in purposes


def out_of_date(certificates: Mapping[str, bytes], now: datetime | None = None) -> str | None:
    """What is wrong with the first certificate that is not valid, and what to do; else ``None``.

    Args:
        certificates: PEM, by the name that the message is to call it by.
        now: in UTC; this machine's clock where ``None``.
    """
    now = now or datetime.now(UTC)
    for name, pem in certificates.items():
        certificate = x509.load_pem_x509_certificate(pem)
        first, last = certificate.not_valid_before_utc, certificate.not_valid_after_utc
        if now < first:
            return (
                f"{name} is valid from {first:%Y-%m-%d %H:%M} UTC on and this machine's clock says "
                f"{now:%Y-%m-%d %H:%M}: set the clock"
            )
        if now > last:
            return (
                f"{name} was valid until {last:%Y-%m-%d %H:%M} UTC and this machine's clock says "
                f"{now:%Y-%m-%d %H:%M}: set the clock if it is wrong, else make the certificate "
                "again with `recast certs`"
            )
    return None
