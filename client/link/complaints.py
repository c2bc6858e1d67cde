"""What a client says of a connection that failed, and when it stops trying."""

from __future__ import annotations

import logging

import grpc
import grpc.aio

from client.link.aside import aside
from client.link.channel import Endpoint
from client.link.diagnosis import NOBODY
from recast_core.errors import RecastError
from recast_core.text import plain

logger = logging.getLogger("recast.link")
_FINAL = {
    grpc.StatusCode.PERMISSION_DENIED: "ask the federation's operator for a certificate",
    grpc.StatusCode.UNIMPLEMENTED: "use the same version of recast as the server",
    grpc.StatusCode.INVALID_ARGUMENT: "use the same version of recast as the server",
}
# The codes of gRPC behind which there may be a fault of the network, of TLS or of the address.
_OBSCURE = {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.UNKNOWN, grpc.StatusCode.INTERNAL}
# What worked before may work again, as behind a wireless network's own login page. Looking costs a
# TLS greeting, which a link that was merely cut is spared.
LOOK_AFTER = 3
PATIENCE = 5


class Complaints:
    """Says why there is no link, and gives up where that cannot get better."""

    def __init__(self, endpoint: Endpoint, name: str) -> None:
        self._endpoint, self._name = endpoint, name
        self._worked = False
        self._failures = self._permanent = 0

    def connected(self) -> None:
        """The server has welcomed this client."""
        self._worked = True
        self._failures = self._permanent = 0

    async def about(self, error: grpc.aio.AioRpcError) -> None:
        """Log why a connection ended.

        Raises:
            RecastError: trying again would not help.
        """
        target, details = self._endpoint.target, plain(error.details() or "", 200)
        remedy = _FINAL.get(error.code())
        if remedy is not None:
            raise RecastError(f"{target} refused {self._name!r} ({details}): {remedy}") from error
        fault = None
        self._failures += 1
        if error.code() in _OBSCURE and not (self._worked and self._failures < LOOK_AFTER):
            fault = await aside(self._endpoint.diagnose)
        if fault is None or not fault.permanent:
            self._permanent = 0
        else:
            self._permanent += 1
            if not self._worked or self._permanent >= PATIENCE:
                raise RecastError(f"no link to {target}: {fault.text}") from error
        code = error.code().name.lower().replace("_", " ")
        said = fault.text if fault else f"{code}: {details}"
        if fault is None and "Connection refused" in details:
            said = NOBODY
        logger.warning("no link to %s: %s; trying again", target, said)
        if error.code() == grpc.StatusCode.UNAVAILABLE and (doubt := self._endpoint.doubt()):
            logger.warning("%s", doubt)
