"""A Flower grid through an MQTT broker: what is the same for many clients is published once."""

from __future__ import annotations

import ssl
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from flwr.app import Message

from protos import link_v1_pb2 as link
from protos.content import from_content
from protos.mqtt import BrokerUrl, Topics
from protos.mqtt_broker import Broker, Heard, Login, Lost, Will
from recast_core.setting_values import Value
from server.link.revocations import Revocations
from server.link.session_grid import SessionGrid
from server.link.web_bank import WebBank
from server.mqtt.desk import Desk, Post
from server.mqtt.proof import Proofs

# The server has no battery: it pings more often than clients, and is missed sooner.
KEEPALIVE = 60.0


@dataclass(frozen=True)
class BrokerAccess:
    """How the server gets to a broker, and what it demands of those who join.

    Attributes:
        url: where.
        name: whom to be there.
        password: where the broker has passwords.
        tls: ``None`` for plain text.
        certificate: what the certificate's file is called; empty for none.
        authority: PEM of the authority that clients' certificates must be signed by; ``None`` where
            the broker's word is all there is.
        revoked: the list of revoked certificates.
    """

    url: BrokerUrl
    name: str
    password: str | None = None
    tls: ssl.SSLContext | None = None
    certificate: str = ""
    authority: bytes | None = None
    revoked: Path | None = None

    def broker(self, will: Will | None, heard: Heard, lost: Lost) -> Broker:
        """A connection, not made yet."""
        user = self.name if self.password is not None or not self.certificate else None
        login = Login(
            self.url,
            f"{self.url.base}-{self.name}",
            user,
            self.password,
            self.tls,
            self.certificate,
            KEEPALIVE,
        )
        return Broker(login, will, heard, lost)


class MqttGrid(SessionGrid):
    """A grid whose nodes are clients that talk to the same broker.

    A message that is the same for most clients is published once, and kept by the broker for those
    that are away; numbers are common to all, so that one frame does for all.
    """

    def __init__(
        self,
        access: BrokerAccess,
        settings: Mapping[str, Value],
        *,
        deadline: float = 3600.0,
        grace: float = 120.0,
        bank: WebBank | None = None,
    ) -> None:
        """Connect to the broker, however long it takes.

        Args:
            access: to the broker.
            settings: of the run, for clients; none that concern the server's machine alone.
            deadline: seconds that one exchange may take.
            grace: seconds for which a client that is away still counts as present.
            bank: where clients fetch banks; ``None`` for from the broker.

        Raises:
            RecastError: the broker will not have this server.
        """
        revocations = Revocations(access.revoked)
        super().__init__(
            settings,
            revocations,
            deadline=deadline,
            grace=grace,
            bank=bank,
            authority=access.authority,
        )
        self._desk = Desk(
            Topics(access.url.base),
            access.broker,
            self.sessions,
            self._admission,
            self._bodies,
            None if access.authority is None else Proofs(access.authority),
            access.name,
        )
        self._closed = False
        self._desk.open()
        self.address = str(access.url)

    def end(self, *, finished: bool) -> None:
        """Stop serving. Clients of a finished run are told so; others wait for the next server."""
        if not self._closed:
            self._closed = True
            self._desk.close(finished=finished)

    def wait_for_clients(self, count: int) -> None:
        """Return when ``count`` clients are connected.

        Raises:
            RecastError: the broker will not have this server any more.
        """
        sessions = self.sessions

        def enough() -> bool:
            there = sum(session.stream is not None for session in sessions.all())
            return self._desk.fault is not None or there >= count

        with sessions.changed:
            sessions.changed.wait_for(enough)
        self._check()

    def get_node_ids(self) -> Iterable[int]:
        """The clients that are connected, or were within the grace."""
        self._check()
        return super().get_node_ids()

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """The replies to these messages that have come, each once."""
        self._check()
        return super().pull_messages(message_ids)

    def tells(self, type_: str, size: int) -> bool:
        """Never: what clients fetch from a broker, only that broker knows."""
        return False

    def _check(self) -> None:
        if self._desk.fault is not None:
            raise self._desk.fault

    def _push(self, messages: Sequence[Message]) -> list[str]:
        """Send each message; those of one content together, where most clients are to have it."""
        self._check()
        alike: dict[tuple[str, bytes | None], list[int]] = defaultdict(list)
        for index, message in enumerate(messages):
            alike[message.metadata.message_type, from_content(message)].append(index)
        keys = [""] * len(messages)
        for slot, indices in enumerate(alike.values()):
            group = [messages[index] for index in indices]
            for index, key in zip(indices, self._push_alike(group, slot), strict=True):
                keys[index] = key
        return keys

    def _push_alike(self, group: Sequence[Message], slot: int) -> list[str]:
        wrapped = [self.wrapped(message) for message in group]
        sha256, frame = wrapped[0]
        if sha256 is not None:
            self._desk.offer(sha256)
        nodes = {message.metadata.dst_node_id for message in group}
        sessions = self.sessions
        with sessions.changed:
            sessions.numbered = number = sessions.numbered + 1
            known = [one for one in sessions.all() if not one.expelled]
            apart = sorted(one.place for one in known if one.node not in nodes)
            names = [one.name for one in known if one.node in nodes]
            # Whoever it does not concern reads it all the same: one by one where that is most.
            together = len(names) > 1 and len(names) > len(apart)
            if together:
                self._desk.expect(number, slot)
            keys = [
                self._push_one(message, one, frame, number)
                for message, (one, _) in zip(group, wrapped, strict=True)
            ]
        if together:
            copy = link.FromServer()
            copy.CopyFrom(frame)
            copy.number, copy.session = number, sessions.session_id
            copy.apart.extend(apart)
            self._desk.post(Post(slot, number, copy.SerializeToString(), names))
        return keys
