"""Why a connection cannot be made, in words, and whether waiting may help.

What gRPC says of a failed connection is meant for its developers. This looks for itself, with a
connection of its own that says nothing but a TLS greeting.
"""

from __future__ import annotations

import ipaddress
import os
import socket
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from cryptography import x509

from protos.link_address import Address

SECONDS = 5.0
NOBODY = "nobody listens there"
# In the order in which gRPC looks at them.
PROXY_VARIABLES = ("grpc_proxy", "https_proxy", "http_proxy")
_OTHER_HOST = {62, 64}
_OUT_OF_DATE = {9, 10}
_NOT_TLS = {"WRONG_VERSION_NUMBER", "HTTP_REQUEST", "UNKNOWN_PROTOCOL", "RECORD_LAYER_FAILURE"}


@dataclass(frozen=True)
class Fault:
    """What keeps a client from its server.

    Attributes:
        text: cause and remedy.
        permanent: trying again does not mend it.
    """

    text: str
    permanent: bool = False


def proxy_in_force(address: Address, environment: Mapping[str, str] = os.environ) -> str | None:
    """The variable that sends a connection to ``address`` through a proxy, if any does.

    By gRPC's rules: the first variable that is set decides, even an empty one; a proxy is
    ``http://``; exempt are domains with what lies in them, addresses and CIDR ranges. By ours
    ``*`` exempts all, and connections to this machine never go through one.
    """
    if address.is_here:
        return None
    variable = next((name for name in PROXY_VARIABLES if name in environment), None)
    if variable is None or urlsplit(environment[variable]).scheme != "http":
        return None
    exempt = environment.get("no_grpc_proxy", environment.get("no_proxy", ""))
    ends = [end.strip().lower() for end in exempt.split(",") if end.strip()]
    return None if any(_exempts(end, address.host.lower()) for end in ends) else variable


def _exempts(end: str, host: str) -> bool:
    if end == "*":
        return True
    try:
        if ipaddress.ip_address(host) in ipaddress.ip_network(end, strict=False):
            return True
    except ValueError:  # not both of them numbers
        pass
    name = end.removeprefix(".")
    return host == name or host.endswith(f".{name}")


def diagnose(address: Address, authority: bytes | None) -> Fault | None:
    """Look for what is wrong; blocks for some seconds at most.

    Args:
        address: of the server.
        authority: PEM of the authority that should have signed the server; ``None`` for plain text.

    Returns:
        The fault; ``None`` where this finds none, so that trying again is all that is left.
    """
    variable = proxy_in_force(address)
    if variable is not None:
        proxy = urlsplit(os.environ[variable]).hostname or "?"
        return Fault(
            f"{variable} sends this through the proxy {proxy}: unset it, or name {address.host} in "
            "no_proxy"
        )
    try:
        if authority is None:
            return _plain(address)
        return _secure(address, authority)
    except socket.gaierror as error:
        return Fault(f"no address is known of {address.host} ({error.strerror}): check the name")
    except ConnectionRefusedError:
        return Fault(NOBODY)
    except TimeoutError:
        return Fault(f"no answer within {SECONDS:.0f} s: check address and firewall")
    except (ConnectionError, ssl.SSLEOFError):
        return Fault("the connection was closed")
    except OSError as error:
        return Fault(error.strerror or str(error))


def _secure(address: Address, authority: bytes) -> Fault | None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(cadata=authority.decode())
    try:
        _greet(address, context)
    except ssl.SSLCertVerificationError as error:
        if error.verify_code in _OUT_OF_DATE:
            return Fault(
                "the server's certificate is not valid by this machine's clock: set the clock if "
                "it is wrong, else let the operator make the certificate again"
            )
        if error.verify_code in _OTHER_HOST:
            return Fault(
                f"the server's certificate is not for {address.host} but for {_names(address)}: "
                "join by one of these names, or let the operator make one for this name",
                permanent=True,
            )
        return Fault(
            "the server's certificate is not signed by the authority in ca.pem "
            f"({error.verify_message}): copy the federation's own ca.pem, and join the server that "
            "it belongs to",
            permanent=True,
        )
    except (ssl.SSLEOFError, ssl.SSLZeroReturnError):
        raise
    except ssl.SSLError as error:
        if error.reason not in _NOT_TLS:
            return Fault(f"the TLS greeting fails ({error.reason})")
        return Fault(
            f"what answers there does not speak TLS ({error.reason}): it was started with "
            "--insecure, or is no recast server; check the port",
            permanent=True,
        )
    return None


def _plain(address: Address) -> Fault | None:
    try:
        _greet(address, _trusting())
    except (TimeoutError, ssl.SSLError, ConnectionResetError):
        return None  # it speaks plain text, as this client does
    return Fault(
        "the server speaks TLS: join with a certificate (--certs), without --insecure",
        permanent=True,
    )


def _names(address: Address) -> str:
    """What the server's certificate is for."""
    try:
        certificate = x509.load_der_x509_certificate(_greet(address, _trusting()))
        found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (OSError, ValueError, x509.ExtensionNotFound):
        return "another"
    names = [
        *found.get_values_for_type(x509.DNSName),
        *map(str, found.get_values_for_type(x509.IPAddress)),
    ]
    return ", ".join(names[:8]) or "another"


def _trusting() -> ssl.SSLContext:
    """For looking at a certificate, never for saying anything."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


def _greet(address: Address, context: ssl.SSLContext) -> bytes:
    """The server's certificate, in DER."""
    context.set_alpn_protocols(["h2"])
    with (
        socket.create_connection((address.host, address.port), SECONDS) as plain,
        context.wrap_socket(plain, server_hostname=address.host) as secure,
    ):
        return secure.getpeercert(binary_form=True) or b""
