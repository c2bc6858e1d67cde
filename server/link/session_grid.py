"""What grids with a session for each client have in common, whatever carries their frames."""

from __future__ import annotations

import json
import logging
import secrets
from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence

from cryptography import x509
from flwr.app import Error, Message

from protos import link_v1_pb2 as link
from protos import recast_v1_pb2 as pb
from protos.content import from_content, to_content
from protos.link import MAX_REPLY, MAX_STREAM_BODY, pack, refer
from recast_core.secure.members import DistrustError, check_member
from recast_core.setting_values import Value
from server.exchange.carried import Carried
from server.flower import ServedGrid, number
from server.link.admission import Admission
from server.link.bodies import Bodies
from server.link.identity import node_id
from server.link.revocations import Revocations
from server.link.session import Answer
from server.link.sessions import Sessions
from server.link.web_bank import WebBank
from server.record.rows import Refusal

logger = logging.getLogger("recast.link")
BANK = "query.bank"


class SessionGrid(ServedGrid):
    """A grid whose nodes are clients with a session each.

    A message to a client that is away waits for it. Such a client counts as present for ``grace``
    seconds from its leaving. When it is sent another message of a type, an unanswered one is not
    sent again: an answer that is on its way can be pulled, as a late one, until the next but one.

    Attributes:
        longest_reply: in bytes.
        address: where clients find this grid.
    """

    longest_reply = MAX_REPLY
    address: str

    def __init__(
        self,
        settings: Mapping[str, Value],
        revocations: Revocations,
        *,
        deadline: float,
        grace: float,
        bank: WebBank | None,
        authority: bytes | None = None,
    ) -> None:
        """Nobody has joined yet.

        Args:
            settings: of the run, for clients; none that concern the server's machine alone.
            revocations: certificates that are refused.
            deadline: seconds that one exchange may take.
            grace: seconds for which a client that is away still counts as present.
            bank: where clients fetch banks, ``None`` for from this grid.
            authority: PEM of the certificate that signs clients'; ``None`` where they have none.
        """
        super().__init__()
        self._authority = None if authority is None else x509.load_pem_x509_certificate(authority)
        self._deadline, self._grace, self._bank = deadline, grace, bank
        self._questions: dict[str, tuple[Message, bytes | None]] = {}
        self.sessions = Sessions(secrets.randbelow(2**32 - 1) + 1, json.dumps(dict(settings)))
        self._admission = Admission(self.sessions, revocations)
        self._bodies = Bodies()

    @abstractmethod
    def end(self, *, finished: bool) -> None:
        """Stop serving. Clients of a finished run are told so; others will look for it again."""

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

    def why_not_of(self, node: int, member: pb.SecureMember) -> str:
        """See ``server.exchange.vouching``."""
        name = self.names().get(node)
        if self._authority is None or name is None:
            return ""
        try:
            check_member(member, name, self._authority)
        except DistrustError as error:
            return str(error)
        return ""

    def get_node_ids(self) -> Iterable[int]:
        """The clients that are connected, or were within the grace."""
        self._admission.expel_revoked()
        return self.sessions.near(self._grace)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Send each message to its client, now or when it is back."""
        self._admission.expel_revoked()
        messages = list(messages)
        asked = {_what(message) for message in messages}
        old = [key for key, (question, _) in self._questions.items() if _what(question) in asked]
        self._withdraw(self.sessions.retire(old))
        return self._push(messages)

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
        return type_ == BANK and size > MAX_STREAM_BODY and self._bank is None

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

    def _push(self, messages: Sequence[Message]) -> list[str]:
        """Send each message; their keys."""
        return [self._push_one(message, *self.wrapped(message)) for message in messages]

    def _push_one(
        self, message: Message, sha256: bytes | None, frame: link.FromServer, at: int | None = None
    ) -> str:
        """Put ``frame`` into the client's session, under the number ``at`` or its next one."""
        key = number(message)
        self._questions[key] = message, sha256

        def numbered(count: int) -> bytes:
            frame.number = count
            return frame.SerializeToString()

        self.sessions.push(message.metadata.dst_node_id, key, numbered, at)
        return key

    def wrapped(self, message: Message) -> tuple[bytes | None, link.FromServer]:
        """The frame for a message, and the SHA-256 of its body where that is kept for fetching."""
        body = from_content(message)
        if body is None:
            raise ValueError("this grid carries messages of protos.content only")
        type_ = message.metadata.message_type
        if len(body) <= MAX_STREAM_BODY:
            return None, pack(type_, body)
        if self._bank is not None and type_ == BANK:
            return None, link.FromServer(reference=self._bank.reference(type_, body))
        sha256 = self._bodies.add(body, type_)
        return sha256, refer(type_, sha256, len(body))

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
