"""Our messages inside Flower's: one ConfigRecord with one bytes value."""

from __future__ import annotations

from flwr.app import ConfigRecord, Message, RecordDict

_RECORD, _VALUE = "r", "m"


def to_content(body: bytes) -> RecordDict:
    """The content of a Flower message that carries ``body``, a serialised ToClient or ToServer."""
    return RecordDict({_RECORD: ConfigRecord({_VALUE: body})})


def from_content(message: Message) -> bytes | None:
    """The body that ``message`` carries, or ``None`` if it is not one of ours."""
    if not message.has_content():
        return None
    record = message.content.config_records.get(_RECORD)
    body = None if record is None else record.get(_VALUE)
    return body if isinstance(body, bytes) else None
