"""Whether a Join that came through a broker was signed by the certificate of its name."""

from __future__ import annotations

from datetime import UTC, datetime

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from protos import link_v1_pb2 as link
from protos.link import is_for_clients, issued_by
from protos.mqtt import signed_part
from server.link.identity import DeniedError


class Proofs:
    """Checks Joins against the authority that signs clients."""

    def __init__(self, authority: bytes) -> None:
        """With the authority's certificate in PEM."""
        self._authority = x509.load_pem_x509_certificate(authority)

    def check(self, name: str, join: link.Join, serving: int) -> int:
        """The serial number of the certificate that a Join of ``name`` was signed with.

        ``serving`` names this server process: a Join that was meant for another proves nothing.

        Raises:
            DeniedError: there is none, or it does not prove this.
        """
        if not join.certificate:
            raise DeniedError("no certificate came: join with one made by `recast certs add`")
        try:
            certificate = issued_by(join.certificate, self._authority)
            names = certificate.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)
            key = certificate.public_key()
        except ValueError as error:
            raise DeniedError("the certificate is not of this federation's authority") from error
        if [one.value for one in names] != [name]:
            raise DeniedError(f"the certificate is not that of {name}")
        if not is_for_clients(certificate):
            raise DeniedError(f"the certificate of {name} is not made for clients", name)
        now = datetime.now(UTC)
        if not certificate.not_valid_before_utc <= now <= certificate.not_valid_after_utc:
            raise DeniedError(f"the certificate of {name} is out of date", name)
        if not isinstance(key, ec.EllipticCurvePublicKey):
            raise DeniedError(
                f"the certificate of {name} has another key than `recast certs` makes"
            )
        try:
            signed = signed_part(name, join, serving)
            key.verify(join.signature, signed, ec.ECDSA(hashes.SHA256()))
        except InvalidSignature as error:
            # A join that crossed with a new server process was signed for the one before.
            raise DeniedError(
                f"the join of {name} is not signed by its certificate for this server process",
                retry=True,
            ) from error
        return certificate.serial_number
