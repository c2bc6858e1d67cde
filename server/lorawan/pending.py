"""Messages of the strategy, and what came of them: as much as anybody may still ask for."""

from __future__ import annotations

from collections.abc import Iterable

from flwr.app import Error, Message

from protos import recast_v1_pb2 as pb
from protos.content import to_content
from server.flower import number

_What = tuple[int, str]


class Pending:
    """Questions, and answers that have not been taken.

    Of a question that was never answered, as of a device that is gone, and of an answer that nobody
    took, nothing stays when the same device has been asked for the same twice more: an answer that
    comes late can be taken until then.
    """

    def __init__(self) -> None:
        self._questions: dict[str, tuple[Message, int]] = {}
        self._answers: dict[str, Message] = {}
        self._times: dict[_What, int] = {}

    def __len__(self) -> int:
        return len(self._questions)

    def ask(self, messages: Iterable[Message]) -> dict[str, Message]:
        """Take up messages that are sent together: they, by number."""
        asked = {number(message): message for message in messages}
        for what in {_what(message) for message in asked.values()}:
            self._times[what] = self._times.get(what, 0) + 1
        old = [
            key
            for key, (message, times) in self._questions.items()
            if times + 1 < self._times[_what(message)]
        ]
        for key in old:
            self._forget(key)
        for key, message in asked.items():
            self._questions[key] = message, self._times[_what(message)]
        return asked

    def answer(self, key: str, body: pb.ToServer | Error) -> None:
        """What came of a question, unless nobody would ask for it."""
        if key not in self._questions:
            return
        question, _ = self._questions[key]
        content = body if isinstance(body, Error) else to_content(body.SerializeToString())
        reply = Message(content, reply_to=question)
        number(reply)
        self._answers[key] = reply

    def has(self, key: str) -> bool:
        """Whether there is an answer."""
        return key in self._answers

    def take(self, keys: Iterable[str]) -> list[Message]:
        """The answers that there are, each once."""
        found = [key for key in keys if key in self._answers]
        taken = [self._answers[key] for key in found]
        for key in found:
            self._forget(key)
        return taken

    def _forget(self, key: str) -> None:
        self._questions.pop(key, None)
        self._answers.pop(key, None)


def _what(message: Message) -> _What:
    return message.metadata.dst_node_id, message.metadata.message_type
