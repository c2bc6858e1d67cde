"""A Flower grid on the lean link: the ServerApp's messages go straight into clients' streams."""

from __future__ import annotations

import json
import logging
import secrets
from collections.abc import Iterable, Mapping
from types import TracebackType
from typing import Self

from flwr.app import Error, Message

from protos import link_v1_pb2 as link
from protos.content import from_content, to_content
from protos.link import MAX_REPLY, MAX_STREAM_BODY, pack, refer
from protos.link_address import Address
from recast_core.errors import RecastError
from recast_core.setting_values import Value
from server.exchange.carried import Carried
from server.flower import OwnGrid, number
from server.link.bodies import Bodies
from server.link.doorkeeper import Doorkeeper
from server.link.identity import node_id
from server.link.limits import WAITING_AT_MOST, WAITING_PER_ADDRESS
from server.link.listen import Listener, ServerKeys
from server.link.revocations import Revocations
from server.link.servicer import Servicer
from server.link.session import Answer
from server.link.sessions import Sessions
from server.record.rows import Refusal

logger = logging.getLogger("recast.link")
FAREWELL_SECONDS = 5.0
BANK = "query.bank"


class LinkGrid(OwnGrid):
    """A grid whose nodes are clients with a stream each, or that had one a moment ago.

    A message to a client that is away waits for it. Such a client counts as present for ``grace``
    seconds from its leaving. When it is sent another message of a type, an unanswered one is not
    sent again: an answer that is on its way can be pulled, as a late one, until the next but one.

    Attributes:
        longest_reply: in bytes.
    """

    longest_reply = MAX_REPLY

    def __init__(
        self,
        address: str,
        keys: ServerKeys | None,
        settings: Mapping[str, Value],
        *,
        deadline: float = 3600.0,
        grace: float = 120.0,
        keepalive: float = 240.0,
    ) -> None:
        """Listen for clients.

        Args:
            address: ``HOST:PORT``; port 0 is any.
            keys: of mutual TLS; ``None`` for plain text, where clients are who they say.
            settings: of the run, for clients; none that concern the server's machine alone.
            deadline: seconds that one exchange may take.
            grace: seconds for which a client that is away still counts as present.
            keepalive: seconds of silence after which a stream is probed.

        Raises:
            RecastError: the address is none, or cannot be listened at.
        """
        super().__init__()
        try:
            where = Address.parse(address)
        except ValueError as error:
            raise RecastError(str(error)) from error
        self._deadline, self._grace = deadline, grace
        self._questions: dict[str, tuple[Message, bytes | None]] = {}
        self.sessions = Sessions(secrets.randbelow(2**32 - 1) + 1, json.dumps(dict(settings)))
        self._bodies = Bodies()
        self._servicer = Servicer(
            self.sessions,
            self._bodies,
            Revocations(keys.revoked if keys else None),
            certificates=keys is not None,
        )
        self._listener = Listener(str(where), keys, self._servicer.handler(), keepalive)
        self._listener.accompany(self._servicer.watch())
        joined = self._servicer.turnstile.joined
        most = min(WAITING_AT_MOST, max(WAITING_PER_ADDRESS, self._listener.connections // 8))
        doorkeeper = Doorkeeper(self._listener.port, lambda: joined, most)
        self._listener.accompany(doorkeeper.watch())
        self.address = str(Address(where.host, self._listener.port))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.end(finished=error is None)

    def end(self, *, finished: bool) -> None:
        """Stop serving. Clients of a finished run are told so; others will look for it again."""
        if self._listener.closed:
            return
        if finished:
            self.sessions.dismiss(link.Dismissal.REASON_FINISHED)
            self.sessions.wait_until_empty(FAREWELL_SECONDS)
        self._listener.close(grace=1.0 if finished else 0.0)

    def bid_farewell(self, count: int, seconds: float) -> int:
        """Tell whoever comes that the run is finished.

        Returns:
            How many have been told, after ``count`` of them or some seconds.
        """
        self.sessions.dismiss(link.Dismissal.REASON_FINISHED)
        self.sessions.wait_until_told(count, seconds)
        return len(self.sessions.all())

    def wait_for_clients(self, count: int) -> None:
        """Return when ``count`` clients are connected."""
        self.sessions.wait_for_clients(count)

    def names(self) -> dict[int, str]:
        """See ``server.exchange.naming``."""
        return {session.node: session.name for session in self.sessions.all()}

    def get_node_ids(self) -> Iterable[int]:
        """The clients that are connected, or were within the grace."""
        self._servicer.expel_revoked()
        return self.sessions.near(self._grace)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Send each message to its client, now or when it is back."""
        self._servicer.expel_revoked()
        messages = list(messages)
        asked = {_what(message) for message in messages}
        old = [key for key, (question, _) in self._questions.items() if _what(question) in asked]
        self._withdraw(self.sessions.retire(old))
        return [self._push(message) for message in messages]

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """The replies to these messages that have come, each once."""
        answers = self.sessions.take(message_ids)
        return [self._reply(key, answer) for key, answer in answers.items()]

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        """Send messages and return the replies; whoever does not answer in time has none."""
        keys = list(self.push_messages(messages))
        seconds = self._deadline if timeout is None else min(timeout, self._deadline)
        silent: list[str] = []
        try:
            self.sessions.wait(keys, seconds, self._grace)
        finally:
            silent = self.sessions.withdraw(keys)
            replies = list(self.pull_messages(keys))
            self._withdraw(keys)
        if silent:
            logger.warning("no answer in time from %s", ", ".join(sorted(silent)))
        return replies

    def tells(self, type_: str, size: int) -> bool:
        """Whether a body's bytes are told when they are handed over, by ``take_carried``."""
        return type_ == BANK and size > MAX_STREAM_BODY

    def take_carried(self) -> list[Carried]:
        """The parts of banks that clients have been given since this was last called."""
        return [part for part in self.sessions.take_carried() if part.type == BANK]

    def notify(self, node: int, text: str) -> int:
        """Have a line of text logged by a client; its bytes, 0 for one that never joined."""
        return self.sessions.notify(node, text)

    def notify_all(self, text: str, seconds: float) -> None:
        """Have a line of text logged by every client; returns when it is sent, or in time."""
        for session in self.sessions.all():
            self.sessions.notify(session.node, text)
        self.sessions.wait_until_noticed(seconds)

    def take_refusals(self) -> list[Refusal]:
        """What the link itself has refused since this was last called, by client."""
        return [
            Refusal(
                "unknown" if refused.client is None else str(node_id(refused.client)),
                None,
                0,
                refused.reason,
                f"{refused.client or 'a stranger'}: {refused.detail}",
            )
            for refused in self.sessions.take_refusals()
        ]

    def _push(self, message: Message) -> str:
        body = from_content(message)
        if body is None:
            raise ValueError("this grid carries messages of protos.content only")
        key = number(message)
        metadata = message.metadata
        sha256 = (
            self._bodies.add(body, metadata.message_type) if len(body) > MAX_STREAM_BODY else None
        )
        self._questions[key] = message, sha256

        def frame(count: int) -> bytes:
            if sha256 is None:
                return pack(count, metadata.message_type, body)
            return refer(count, metadata.message_type, sha256, len(body))

        self.sessions.push(metadata.dst_node_id, key, frame)
        return key

    def _reply(self, key: str, answer: Answer) -> Message:
        question = self._forget(key)
        assert question is not None
        if answer.body is None:
            reply = Message(Error(code=answer.code, reason=answer.error), reply_to=question)
        else:
            reply = Message(to_content(answer.body), reply_to=question)
        number(reply)
        return reply

    def _withdraw(self, keys: list[str]) -> list[str]:
        """Forget messages and their answers; the names of clients that had not answered."""
        silent = self.sessions.withdraw(keys)
        self.sessions.take(keys)
        for key in keys:
            self._forget(key)
        return silent

    def _forget(self, key: str) -> Message | None:
        question, sha256 = self._questions.pop(key, (None, None))
        if sha256 is not None:
            self._bodies.release(sha256)
        return question


def _what(message: Message) -> tuple[int, str]:
    return message.metadata.dst_node_id, message.metadata.message_type
