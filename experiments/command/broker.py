"""What the commands of a federation make of ``--mqtt``, ``--certs`` and a password."""

from __future__ import annotations

import os
from pathlib import Path
from ssl import SSLContext
from typing import TYPE_CHECKING

from client.link import ClientKeys
from protos.mqtt import PASSWORD, SERVER, BrokerUrl, tls_context
from recast_core.errors import RecastError
from recast_core.extras import needed

if TYPE_CHECKING:
    from client.mqtt import ClientAccess

    with needed("--mqtt", "paho-mqtt", "mqtt"):
        from server.mqtt.grid import BrokerAccess


def server_access(text: str, certs: Path, *, forced: bool) -> BrokerAccess:
    """The broker as a server gets to it.

    Raises:
        RecastError: no such URL, keys that cannot be used, or plain text where it may not be.
    """
    url, password = _url(text, forced=forced), os.environ.get(PASSWORD)
    with needed("--mqtt", "paho-mqtt", "mqtt"):
        from server.mqtt.grid import BrokerAccess
    from server.link.revocations import check_list

    name = url.user or SERVER
    if not url.secure or password is not None:
        return BrokerAccess(url, name, password, _tls(url, certs, None))
    keys = ClientKeys.load(certs, name)
    revoked = certs / "revoked.txt"
    check_list(revoked)
    tls = _tls(url, certs, name)
    return BrokerAccess(url, name, None, tls, f"{name}.pem", keys.authority, revoked)


def client_access(
    text: str, certs: Path, name: str, *, keepalive: float, forced: bool
) -> ClientAccess:
    """The broker as a client gets to it.

    Raises:
        RecastError: no such URL, keys that cannot be used, or plain text where it may not be.
    """
    url, password = _url(text, forced=forced), os.environ.get(PASSWORD)
    with needed("--mqtt", "paho-mqtt", "mqtt"):
        from client.mqtt import ClientAccess

    if not url.secure or password is not None:
        return ClientAccess(url, None, password, _tls(url, certs, None), keepalive)
    keys = ClientKeys.load(certs, name)
    return ClientAccess(url, keys, None, _tls(url, certs, name), keepalive)


def _url(text: str, *, forced: bool) -> BrokerUrl:
    try:
        url = BrokerUrl.parse(text)
    except ValueError as error:
        raise RecastError(f"--mqtt: {error}") from error
    if not url.address.port:
        raise RecastError(f"--mqtt: {text!r}: 0 is no port; give the broker's")
    if not url.secure and not url.address.is_loopback and not forced:
        raise RecastError(
            f"--mqtt {url} would let anyone on the way read and change everything: give mqtts://, "
            "or insist with --force-insecure"
        )
    return url


def _tls(url: BrokerUrl, certs: Path, name: str | None) -> SSLContext | None:
    """TLS with the certificate of ``name``, or with none."""
    if not url.secure:
        return None
    authority = certs / "ca.pem"
    try:
        if name is None:
            return tls_context(authority if authority.exists() else None)
        return tls_context(authority, certs / f"{name}.pem", certs / f"{name}.key")
    except OSError as error:
        raise RecastError(f"{certs}: no TLS with these files ({error}): make them again") from error
