"""Why there is no connection to a broker, in words, and whether waiting may help."""

from __future__ import annotations

import socket
import ssl


class BrokerFaultError(Exception):
    """Why there is no connection; the text is cause and remedy.

    Attributes:
        permanent: trying again does not mend it.
        replaced: another process came under the same name.
    """

    def __init__(self, text: str, *, permanent: bool = False, replaced: bool = False) -> None:
        super().__init__(text)
        self.permanent = permanent
        self.replaced = replaced


def explained(
    error: Exception, host: str, certificate: str, *, secure: bool, seconds: float
) -> BrokerFaultError:
    """What a connection that could not be made failed of.

    Args:
        error: of the socket or of TLS.
        host: that was connected to.
        certificate: what this end's is called; empty for none.
        secure: with TLS.
        seconds: that were waited at most.
    """
    if isinstance(error, ssl.SSLCertVerificationError):
        return _distrusted(error, host)
    if isinstance(error, ssl.SSLError):
        if error.reason in ("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "UNKNOWN_PROTOCOL"):
            return BrokerFaultError(
                "what answers there does not speak TLS: check the port, or give mqtt://",
                permanent=True,
            )
        return alert(error.reason or str(error), certificate) or BrokerFaultError(
            f"the TLS greeting fails ({error.reason or error}): check the port"
        )
    if isinstance(error, socket.gaierror):
        return BrokerFaultError(f"no address is known of {host}: check the name")
    if isinstance(error, ConnectionRefusedError):
        return BrokerFaultError("nobody listens there")
    if isinstance(error, TimeoutError):
        return BrokerFaultError(f"no answer within {seconds:.0f} s: check host, port and firewall")
    if isinstance(error, ValueError):
        return BrokerFaultError(str(error), permanent=True)
    other = (
        "without TLS does so: give mqtt://" if secure else "that wants TLS does so: give mqtts://"
    )
    return BrokerFaultError(
        f"the connection was closed ({error}); a broker {other}, or the other port"
    )


def _distrusted(error: ssl.SSLCertVerificationError, host: str) -> BrokerFaultError:
    text = error.verify_message
    if error.verify_code in (9, 10):
        return BrokerFaultError(
            f"the broker's certificate is not valid by this machine's clock ({text}): set "
            "the clock if it is wrong, else make the certificate again"
        )
    if error.verify_code in (62, 64):
        return BrokerFaultError(
            f"the broker's certificate is not for {host} ({text}): connect by the "
            "name that it is for, or make one for this name",
            permanent=True,
        )
    return BrokerFaultError(
        f"the broker's certificate is not signed by the authority in ca.pem ({text}): copy "
        "the federation's own ca.pem",
        permanent=True,
    )


def alert(text: str, certificate: str) -> BrokerFaultError | None:
    """What a broker's TLS alert says of this end's certificate, if it is one."""
    spoken = text.upper().replace(" ", "_")
    if "ALERT" not in spoken:
        return None
    if "CERTIFICATE_REQUIRED" in spoken:
        return BrokerFaultError(
            "the broker wants a certificate: name the folder with --certs", permanent=True
        )
    if "EXPIRED" in spoken:
        return BrokerFaultError(
            f"the broker finds {certificate} out of date: make it again with `recast certs add`, "
            "or set its clock"
        )
    if any(word in spoken for word in ("REVOKED", "UNKNOWN_CA", "BAD_CERTIFICATE", "CERTIFICATE")):
        return BrokerFaultError(
            f"the broker does not accept {certificate} ({text[:120]}): ask its operator for a "
            "certificate of its authority",
            permanent=True,
        )
    return None
