"""Whether certificates are valid now, as the clock of this machine has it."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime

from cryptography import x509


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
