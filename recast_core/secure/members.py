"""Those among whom a sum is hidden, and whether a client may believe that they are who they say."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from protos import recast_v1_pb2 as pb
from protos.link import is_for_clients, issued_by
from recast_core.errors import RecastError
from recast_core.files import read_bytes
from recast_core.secure.channel import TAG_BYTES, is_key
from recast_core.secure.field import WIDTHS
from recast_core.secure.shamir import threshold

# Of two, each would know the other's update from the sum.
FEWEST = 3
# A sum of more is made of several, so that what a member sends and is sent stays bounded.
MOST = 32
_SIGNED = b"recast secure aggregation, key 1\0"


class DistrustError(ValueError):
    """A roster that a client takes no part in."""


@dataclass(frozen=True)
class Identity:
    """A client's certificate, with which it vouches for its key.

    Attributes:
        key: P-256.
        certificate: of that key.
        authority: that everybody's certificates must be signed by.
    """

    key: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate
    authority: x509.Certificate

    @classmethod
    def of(cls, key: bytes, certificate: bytes, authority: bytes) -> Identity:
        """From PEM.

        Raises:
            RecastError: a key that does not sign this way.
        """
        found = serialization.load_pem_private_key(key, None)
        if not isinstance(found, ec.EllipticCurvePrivateKey):
            raise RecastError(
                "secure aggregation needs a P-256 key: make it with `recast certs add`"
            )
        return cls(
            found,
            x509.load_pem_x509_certificate(certificate),
            x509.load_pem_x509_certificate(authority),
        )


@lru_cache(maxsize=4)
def own_identity(key: Path, certificate: Path, authority: Path) -> Identity:
    """The identity in three PEM files; read once.

    Raises:
        RecastError: a file that cannot be read or used.
    """
    try:
        return Identity.of(read_bytes(key), read_bytes(certificate), read_bytes(authority))
    except (OSError, ValueError, TypeError) as error:
        raise RecastError(
            f"cannot sign with {certificate} ({error}): make it with `recast certs add`"
        ) from error


def longest_hidden(numbers: int) -> int:
    """Bytes that the message of a hidden update of so many numbers, and one beside, may have."""
    return MOST * ((numbers + 1) * max(WIDTHS) + TAG_BYTES) + 128


def announced(public: bytes, identity: Identity | None) -> pb.SecureMember:
    """What a client says of its key: who it is too, where it has a certificate."""
    member = pb.SecureMember(public=public)
    if identity is not None:
        member.certificate = identity.certificate.public_bytes(serialization.Encoding.DER)
        member.signature = identity.key.sign(_SIGNED + public, ec.ECDSA(hashes.SHA256()))
    return member


def check_size(members: int, least: int) -> None:
    """Refuse a roster of whose members so few may make a sum.

    Raises:
        DistrustError: a sum of fewer than ``least`` of them could be opened.
    """
    if (fewest := threshold(members)) < least:
        raise DistrustError(
            f"of a roster of {members} clients {fewest} make a sum, and this client wants at "
            f"least {least} in it (--least-sum)"
        )


def check_roster(
    members: Sequence[pb.SecureMember], own: bytes, identity: Identity | None, least: int = FEWEST
) -> None:
    """Refuse a roster in which a client cannot hide.

    Args:
        members: in their places.
        own: the client's public key.
        identity: of the client; where it has none it must believe what the server says.
        least: see ``check_size``.

    Raises:
        DistrustError: too few or too many members, one twice, this client absent, or a key that a
            certified client of the same authority has not signed.
    """
    if not FEWEST <= len(members) <= MOST:
        raise DistrustError(
            f"a sum of {len(members)} clients: at least {FEWEST} and at most {MOST} hide each other"
        )
    check_size(len(members), least)
    keys = [member.public for member in members]
    if len(set(keys)) < len(keys) or not all(map(is_key, keys)):
        raise DistrustError("the roster has a key twice, or one that is none")
    if own not in keys:
        raise DistrustError("the roster lacks this client's key")
    if identity is not None:
        names = [_vouched(member, identity.authority) for member in members]
        if len(set(names)) < len(names):
            raise DistrustError("the roster has a client twice")


def check_member(member: pb.SecureMember, name: str, authority: x509.Certificate) -> None:
    """Refuse a key that the other members of a roster would not believe to be that of ``name``.

    One such key and none of them would take part.

    Raises:
        DistrustError: it is not signed by a certificate of that name and of the authority.
    """
    _vouched(member, authority)
    subject = x509.load_der_x509_certificate(member.certificate).subject
    if [one.value for one in subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)] != [name]:
        raise DistrustError(f"its certificate is not that of {name}")


def _vouched(member: pb.SecureMember, authority: x509.Certificate) -> str:
    """The name of a member whose certificate and signature hold."""
    try:
        certificate = issued_by(member.certificate, authority)
        key = certificate.public_key()
        if not isinstance(key, ec.EllipticCurvePublicKey) or not is_for_clients(certificate):
            raise DistrustError("a member's certificate is not made for clients")
        key.verify(member.signature, _SIGNED + member.public, ec.ECDSA(hashes.SHA256()))
    except (ValueError, TypeError, InvalidSignature) as error:
        if isinstance(error, DistrustError):
            raise
        raise DistrustError(
            "a member's key is not signed by a client of this federation: the server may have made "
            "it up"
        ) from error
    now = datetime.now(UTC)
    if not certificate.not_valid_before_utc <= now <= certificate.not_valid_after_utc:
        raise DistrustError("a member's certificate is not valid now")
    return certificate.subject.rfc4514_string()


def survivors_of(bits: bytes, members: int) -> list[int]:
    """The places whose bit is set.

    Raises:
        DistrustError: a bit for no place, or too few survivors to hide among.
    """
    number = int.from_bytes(bits, "little")
    if len(bits) != (members + 7) // 8 or number >> members:
        raise DistrustError("survivors that are not in the roster")
    found = [place for place in range(members) if number >> place & 1]
    if len(found) < max(FEWEST, threshold(members)):
        raise DistrustError(f"a sum of {len(found)} of {members} clients: too few to hide among")
    return found


def as_bits(places: Sequence[int], members: int) -> bytes:
    """A bit for each place, lowest first."""
    return sum(1 << place for place in places).to_bytes((members + 7) // 8, "little")


def context_of(
    members: Sequence[pb.SecureMember], bank: int, task: int, round_: int, nonce: int
) -> bytes:
    """Of which sum a share is: one sealed for another is worth nothing there."""
    digest = hashlib.sha256()
    for member in members:
        digest.update(member.public)
    for number in (bank, task, round_, nonce):
        digest.update(number.to_bytes(8, "big"))
    return digest.digest()
