"""A Flower grid on the lean link: the ServerApp's messages go straight into clients' streams."""

from __future__ import annotations

from collections.abc import Mapping

from protos import link_v1_pb2 as link
from protos.link_address import Address
from recast_core.errors import RecastError
from recast_core.setting_values import Value
from server.link.doorkeeper import Doorkeeper
from server.link.limits import WAITING_AT_MOST, WAITING_PER_ADDRESS
from server.link.listen import Listener, ServerKeys
from server.link.revocations import Revocations
from server.link.servicer import Servicer
from server.link.session_grid import SessionGrid
from server.link.web_bank import WebBank

FAREWELL_SECONDS = 5.0


class LinkGrid(SessionGrid):
    """A grid whose nodes are clients with a stream each, or that had one a moment ago."""

    def __init__(
        self,
        address: str,
        keys: ServerKeys | None,
        settings: Mapping[str, Value],
        *,
        deadline: float = 3600.0,
        grace: float = 120.0,
        keepalive: float = 240.0,
        bank: WebBank | None = None,
    ) -> None:
        """Listen for clients.

        Args:
            address: ``HOST:PORT``; port 0 is any.
            keys: of mutual TLS; ``None`` for plain text, where clients are who they say.
            settings: of the run, for clients; none that concern the server's machine alone.
            deadline: seconds that one exchange may take.
            grace: seconds for which a client that is away still counts as present.
            keepalive: seconds of silence after which a stream is probed.
            bank: where clients fetch banks, ``None`` for from here.

        Raises:
            RecastError: the address is none, or cannot be listened at.
        """
        revocations = Revocations(keys.revoked if keys else None)
        super().__init__(
            settings,
            revocations,
            deadline=deadline,
            grace=grace,
            bank=bank,
            authority=keys.authority if keys else None,
        )
        try:
            where = Address.parse(address)
        except ValueError as error:
            raise RecastError(str(error)) from error
        servicer = Servicer(
            self.sessions, self._bodies, self._admission, certificates=keys is not None
        )
        self._listener = Listener(str(where), keys, servicer.handler(), keepalive)
        self._listener.accompany(servicer.watch())
        turnstile = servicer.turnstile
        most = min(WAITING_AT_MOST, max(WAITING_PER_ADDRESS, self._listener.connections // 8))
        doorkeeper = Doorkeeper(
            self._listener.port, lambda: turnstile.joined, most, turnstile.doomed
        )
        self._listener.accompany(doorkeeper.watch())
        self.address = str(Address(where.host, self._listener.port))

    def end(self, *, finished: bool) -> None:
        """Stop serving. Clients of a finished run are told so; others will look for it again."""
        if self._listener.closed:
            return
        if finished:
            self.sessions.dismiss(link.Dismissal.REASON_FINISHED)
            self.sessions.wait_until_empty(FAREWELL_SECONDS)
        else:
            # A stream that is cut takes with it what its client has yet to read.
            self.sessions.let_go()
        self._listener.close(grace=1.0)
