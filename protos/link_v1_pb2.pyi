from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class FromServer(_message.Message):
    __slots__ = ("number", "train", "evaluate", "hello", "bank", "other", "reference", "welcome", "dismissal", "notice", "serving", "session", "apart")
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    TRAIN_FIELD_NUMBER: _ClassVar[int]
    EVALUATE_FIELD_NUMBER: _ClassVar[int]
    HELLO_FIELD_NUMBER: _ClassVar[int]
    BANK_FIELD_NUMBER: _ClassVar[int]
    OTHER_FIELD_NUMBER: _ClassVar[int]
    REFERENCE_FIELD_NUMBER: _ClassVar[int]
    WELCOME_FIELD_NUMBER: _ClassVar[int]
    DISMISSAL_FIELD_NUMBER: _ClassVar[int]
    NOTICE_FIELD_NUMBER: _ClassVar[int]
    SERVING_FIELD_NUMBER: _ClassVar[int]
    SESSION_FIELD_NUMBER: _ClassVar[int]
    APART_FIELD_NUMBER: _ClassVar[int]
    number: int
    train: bytes
    evaluate: bytes
    hello: bytes
    bank: bytes
    other: Other
    reference: Reference
    welcome: Welcome
    dismissal: Dismissal
    notice: str
    serving: Serving
    session: int
    apart: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, number: _Optional[int] = ..., train: _Optional[bytes] = ..., evaluate: _Optional[bytes] = ..., hello: _Optional[bytes] = ..., bank: _Optional[bytes] = ..., other: _Optional[_Union[Other, _Mapping]] = ..., reference: _Optional[_Union[Reference, _Mapping]] = ..., welcome: _Optional[_Union[Welcome, _Mapping]] = ..., dismissal: _Optional[_Union[Dismissal, _Mapping]] = ..., notice: _Optional[str] = ..., serving: _Optional[_Union[Serving, _Mapping]] = ..., session: _Optional[int] = ..., apart: _Optional[_Iterable[int]] = ...) -> None: ...

class Serving(_message.Message):
    __slots__ = ("state", "began")
    class State(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        STATE_UNSPECIFIED: _ClassVar[Serving.State]
        STATE_HERE: _ClassVar[Serving.State]
        STATE_AWAY: _ClassVar[Serving.State]
        STATE_FINISHED: _ClassVar[Serving.State]
    STATE_UNSPECIFIED: Serving.State
    STATE_HERE: Serving.State
    STATE_AWAY: Serving.State
    STATE_FINISHED: Serving.State
    STATE_FIELD_NUMBER: _ClassVar[int]
    BEGAN_FIELD_NUMBER: _ClassVar[int]
    state: Serving.State
    began: int
    def __init__(self, state: _Optional[_Union[Serving.State, str]] = ..., began: _Optional[int] = ...) -> None: ...

class FromClient(_message.Message):
    __slots__ = ("number", "reply", "error", "join", "away")
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    REPLY_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    JOIN_FIELD_NUMBER: _ClassVar[int]
    AWAY_FIELD_NUMBER: _ClassVar[int]
    number: int
    reply: bytes
    error: str
    join: Join
    away: Away
    def __init__(self, number: _Optional[int] = ..., reply: _Optional[bytes] = ..., error: _Optional[str] = ..., join: _Optional[_Union[Join, _Mapping]] = ..., away: _Optional[_Union[Away, _Mapping]] = ...) -> None: ...

class Away(_message.Message):
    __slots__ = ("instance", "connection")
    INSTANCE_FIELD_NUMBER: _ClassVar[int]
    CONNECTION_FIELD_NUMBER: _ClassVar[int]
    instance: int
    connection: int
    def __init__(self, instance: _Optional[int] = ..., connection: _Optional[int] = ...) -> None: ...

class Other(_message.Message):
    __slots__ = ("type", "body")
    TYPE_FIELD_NUMBER: _ClassVar[int]
    BODY_FIELD_NUMBER: _ClassVar[int]
    type: str
    body: bytes
    def __init__(self, type: _Optional[str] = ..., body: _Optional[bytes] = ...) -> None: ...

class Reference(_message.Message):
    __slots__ = ("type", "sha256", "size", "url", "lead")
    TYPE_FIELD_NUMBER: _ClassVar[int]
    SHA256_FIELD_NUMBER: _ClassVar[int]
    SIZE_FIELD_NUMBER: _ClassVar[int]
    URL_FIELD_NUMBER: _ClassVar[int]
    LEAD_FIELD_NUMBER: _ClassVar[int]
    type: str
    sha256: bytes
    size: int
    url: str
    lead: bytes
    def __init__(self, type: _Optional[str] = ..., sha256: _Optional[bytes] = ..., size: _Optional[int] = ..., url: _Optional[str] = ..., lead: _Optional[bytes] = ...) -> None: ...

class Join(_message.Message):
    __slots__ = ("session", "received", "instance", "attempt", "name", "connection", "certificate", "signature")
    SESSION_FIELD_NUMBER: _ClassVar[int]
    RECEIVED_FIELD_NUMBER: _ClassVar[int]
    INSTANCE_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    CONNECTION_FIELD_NUMBER: _ClassVar[int]
    CERTIFICATE_FIELD_NUMBER: _ClassVar[int]
    SIGNATURE_FIELD_NUMBER: _ClassVar[int]
    session: int
    received: int
    instance: int
    attempt: int
    name: str
    connection: int
    certificate: bytes
    signature: bytes
    def __init__(self, session: _Optional[int] = ..., received: _Optional[int] = ..., instance: _Optional[int] = ..., attempt: _Optional[int] = ..., name: _Optional[str] = ..., connection: _Optional[int] = ..., certificate: _Optional[bytes] = ..., signature: _Optional[bytes] = ...) -> None: ...

class Welcome(_message.Message):
    __slots__ = ("session", "settings", "outstanding", "instance", "attempt", "place", "since")
    SESSION_FIELD_NUMBER: _ClassVar[int]
    SETTINGS_FIELD_NUMBER: _ClassVar[int]
    OUTSTANDING_FIELD_NUMBER: _ClassVar[int]
    INSTANCE_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    PLACE_FIELD_NUMBER: _ClassVar[int]
    SINCE_FIELD_NUMBER: _ClassVar[int]
    session: int
    settings: str
    outstanding: _containers.RepeatedScalarFieldContainer[int]
    instance: int
    attempt: int
    place: int
    since: int
    def __init__(self, session: _Optional[int] = ..., settings: _Optional[str] = ..., outstanding: _Optional[_Iterable[int]] = ..., instance: _Optional[int] = ..., attempt: _Optional[int] = ..., place: _Optional[int] = ..., since: _Optional[int] = ...) -> None: ...

class Dismissal(_message.Message):
    __slots__ = ("reason", "detail", "instance")
    class Reason(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        REASON_UNSPECIFIED: _ClassVar[Dismissal.Reason]
        REASON_FINISHED: _ClassVar[Dismissal.Reason]
        REASON_REPLACED: _ClassVar[Dismissal.Reason]
        REASON_DENIED: _ClassVar[Dismissal.Reason]
        REASON_LATER: _ClassVar[Dismissal.Reason]
    REASON_UNSPECIFIED: Dismissal.Reason
    REASON_FINISHED: Dismissal.Reason
    REASON_REPLACED: Dismissal.Reason
    REASON_DENIED: Dismissal.Reason
    REASON_LATER: Dismissal.Reason
    REASON_FIELD_NUMBER: _ClassVar[int]
    DETAIL_FIELD_NUMBER: _ClassVar[int]
    INSTANCE_FIELD_NUMBER: _ClassVar[int]
    reason: Dismissal.Reason
    detail: str
    instance: int
    def __init__(self, reason: _Optional[_Union[Dismissal.Reason, str]] = ..., detail: _Optional[str] = ..., instance: _Optional[int] = ...) -> None: ...

class FetchRequest(_message.Message):
    __slots__ = ("sha256", "offset", "name")
    SHA256_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    sha256: bytes
    offset: int
    name: str
    def __init__(self, sha256: _Optional[bytes] = ..., offset: _Optional[int] = ..., name: _Optional[str] = ...) -> None: ...

class Chunk(_message.Message):
    __slots__ = ("content",)
    CONTENT_FIELD_NUMBER: _ClassVar[int]
    content: bytes
    def __init__(self, content: _Optional[bytes] = ...) -> None: ...
