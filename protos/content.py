"""Our messages inside Flower's: one ConfigRecord with one bytes value."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from typing import Any, Self

from flwr.app import ConfigRecord, Message, Metadata, RecordDict

_RECORD, _VALUE = "r", "m"
# What a letter changes of the metadata of a message that Flower has made.
_CHANGED = frozenset(
    f"_{name}"
    for name in (
        "src_node_id", "dst_node_id", "message_id", "reply_to_message_id", "created_at", "ttl",
    )
)  # fmt: skip


def to_content(body: bytes) -> RecordDict:
    """The content of a Flower message that carries ``body``, a serialised ToClient or ToServer."""
    return RecordDict({_RECORD: ConfigRecord({_VALUE: body})})


def from_content(message: Message) -> bytes | None:
    """The body that ``message`` carries, or ``None`` if it is not one of ours."""
    if isinstance(message, Letter) and message.sealed:
        return message.body
    if not message.has_content():
        return None
    record = message.content.config_records.get(_RECORD)
    body = None if record is None else record.get(_VALUE)
    return body if isinstance(body, bytes) else None


class Letter(Message):
    """A message of ours within a process: its content is made if somebody asks for it.

    A round of thousands of clients would else spend most of its time on Flower's checks of what is
    the same in each. Flower's own grids, which name a message by its class, get none.

    Attributes:
        body: a serialised ToClient or ToServer.
    """

    body: bytes

    @classmethod
    def of(cls, body: bytes, facts: dict[str, Any]) -> Self:
        """The letter whose metadata have these attributes."""
        made, metadata = cls.__new__(cls), Metadata.__new__(Metadata)
        metadata.__dict__ = facts
        made.__dict__ = {"_metadata": metadata, "_content": None, "_error": None, "body": body}
        return made

    @property
    def metadata(self) -> Metadata:
        """See ``Message``."""
        found: Metadata = self.__dict__["_metadata"]
        return found

    @property
    def sealed(self) -> bool:
        """Whether nobody has asked for its content, and may have changed it."""
        return self.__dict__["_content"] is None

    @property
    def content(self) -> RecordDict:
        """See ``Message``."""
        if self.sealed:
            self.__dict__["_content"] = to_content(self.body)
        found: RecordDict = self.__dict__["_content"]
        return found

    @content.setter
    def content(self, value: RecordDict) -> None:
        self.__dict__["_content"] = value

    def has_content(self) -> bool:
        """See ``Message``."""
        return True


def letters(body: bytes, nodes: Iterable[int], type_: str, group: str) -> Iterator[Message]:
    """A message of ours to each of several nodes, of this process."""
    first = Message(to_content(body), 0, type_, group_id=group)
    facts = first.metadata.__dict__
    known = facts.keys() >= _CHANGED
    for node in nodes:
        if known:
            yield Letter.of(body, {**facts, "_dst_node_id": node})
        else:
            yield Message(to_content(body), node, type_, group_id=group)


def letter_back(body: bytes, message: Message) -> Message:
    """The answer to a message: a letter, where that is one."""
    if not isinstance(message, Letter):
        return Message(to_content(body), reply_to=message)
    asked, now = message.metadata.__dict__, time.time()
    return Letter.of(
        body,
        {
            **asked,
            "_src_node_id": asked["_dst_node_id"],
            "_dst_node_id": asked["_src_node_id"],
            "_src_task_id": asked.get("_dst_task_id"),
            "_dst_task_id": asked.get("_src_task_id"),
            "_message_id": "",
            "_reply_to_message_id": asked["_message_id"],
            "_created_at": now,
            "_ttl": asked["_ttl"] - (now - asked["_created_at"]),
        },
    )
