from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Objective(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    OBJECTIVE_SPLIT_RIDGE: _ClassVar[Objective]
    OBJECTIVE_CROSS_ENTROPY: _ClassVar[Objective]
    OBJECTIVE_LABEL_FREE: _ClassVar[Objective]

class HeadKind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    HEAD_LOCAL: _ClassVar[HeadKind]
    HEAD_MEANS: _ClassVar[HeadKind]
    HEAD_RIDGE: _ClassVar[HeadKind]
    HEAD_SHARED: _ClassVar[HeadKind]
    HEAD_LINEAR: _ClassVar[HeadKind]
    HEAD_BACKBONE: _ClassVar[HeadKind]
OBJECTIVE_SPLIT_RIDGE: Objective
OBJECTIVE_CROSS_ENTROPY: Objective
OBJECTIVE_LABEL_FREE: Objective
HEAD_LOCAL: HeadKind
HEAD_MEANS: HeadKind
HEAD_RIDGE: HeadKind
HEAD_SHARED: HeadKind
HEAD_LINEAR: HeadKind
HEAD_BACKBONE: HeadKind

class BankRef(_message.Message):
    __slots__ = ("sha256", "size")
    SHA256_FIELD_NUMBER: _ClassVar[int]
    SIZE_FIELD_NUMBER: _ClassVar[int]
    sha256: bytes
    size: int
    def __init__(self, sha256: _Optional[bytes] = ..., size: _Optional[int] = ...) -> None: ...

class Task(_message.Message):
    __slots__ = ("id", "name", "source", "class_hash", "classes", "wants_classes", "keeps_head")
    ID_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    CLASS_HASH_FIELD_NUMBER: _ClassVar[int]
    CLASSES_FIELD_NUMBER: _ClassVar[int]
    WANTS_CLASSES_FIELD_NUMBER: _ClassVar[int]
    KEEPS_HEAD_FIELD_NUMBER: _ClassVar[int]
    id: int
    name: str
    source: str
    class_hash: int
    classes: _containers.RepeatedScalarFieldContainer[str]
    wants_classes: bool
    keeps_head: bool
    def __init__(self, id: _Optional[int] = ..., name: _Optional[str] = ..., source: _Optional[str] = ..., class_hash: _Optional[int] = ..., classes: _Optional[_Iterable[str]] = ..., wants_classes: bool = ..., keeps_head: bool = ...) -> None: ...

class HelloRequest(_message.Message):
    __slots__ = ("bank", "tasks", "method")
    BANK_FIELD_NUMBER: _ClassVar[int]
    TASKS_FIELD_NUMBER: _ClassVar[int]
    METHOD_FIELD_NUMBER: _ClassVar[int]
    bank: BankRef
    tasks: _containers.RepeatedCompositeFieldContainer[Task]
    method: str
    def __init__(self, bank: _Optional[_Union[BankRef, _Mapping]] = ..., tasks: _Optional[_Iterable[_Union[Task, _Mapping]]] = ..., method: _Optional[str] = ...) -> None: ...

class Hello(_message.Message):
    __slots__ = ("holds_bank", "tasks", "client", "lacks")
    HOLDS_BANK_FIELD_NUMBER: _ClassVar[int]
    TASKS_FIELD_NUMBER: _ClassVar[int]
    CLIENT_FIELD_NUMBER: _ClassVar[int]
    LACKS_FIELD_NUMBER: _ClassVar[int]
    holds_bank: bool
    tasks: _containers.RepeatedCompositeFieldContainer[TaskData]
    client: int
    lacks: _containers.RepeatedCompositeFieldContainer[Lack]
    def __init__(self, holds_bank: bool = ..., tasks: _Optional[_Iterable[_Union[TaskData, _Mapping]]] = ..., client: _Optional[int] = ..., lacks: _Optional[_Iterable[_Union[Lack, _Mapping]]] = ...) -> None: ...

class Lack(_message.Message):
    __slots__ = ("task", "reason", "detail")
    TASK_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    DETAIL_FIELD_NUMBER: _ClassVar[int]
    task: int
    reason: Refusal.Reason
    detail: str
    def __init__(self, task: _Optional[int] = ..., reason: _Optional[_Union[Refusal.Reason, str]] = ..., detail: _Optional[str] = ...) -> None: ...

class TaskData(_message.Message):
    __slots__ = ("task", "train_examples", "test_examples", "classes", "local_classes", "class_hash", "class_names", "keeps_head")
    TASK_FIELD_NUMBER: _ClassVar[int]
    TRAIN_EXAMPLES_FIELD_NUMBER: _ClassVar[int]
    TEST_EXAMPLES_FIELD_NUMBER: _ClassVar[int]
    CLASSES_FIELD_NUMBER: _ClassVar[int]
    LOCAL_CLASSES_FIELD_NUMBER: _ClassVar[int]
    CLASS_HASH_FIELD_NUMBER: _ClassVar[int]
    CLASS_NAMES_FIELD_NUMBER: _ClassVar[int]
    KEEPS_HEAD_FIELD_NUMBER: _ClassVar[int]
    task: int
    train_examples: int
    test_examples: int
    classes: int
    local_classes: int
    class_hash: int
    class_names: _containers.RepeatedScalarFieldContainer[str]
    keeps_head: bool
    def __init__(self, task: _Optional[int] = ..., train_examples: _Optional[int] = ..., test_examples: _Optional[int] = ..., classes: _Optional[int] = ..., local_classes: _Optional[int] = ..., class_hash: _Optional[int] = ..., class_names: _Optional[_Iterable[str]] = ..., keeps_head: bool = ...) -> None: ...

class BankDelivery(_message.Message):
    __slots__ = ("bank", "content")
    BANK_FIELD_NUMBER: _ClassVar[int]
    CONTENT_FIELD_NUMBER: _ClassVar[int]
    bank: BankRef
    content: bytes
    def __init__(self, bank: _Optional[_Union[BankRef, _Mapping]] = ..., content: _Optional[bytes] = ...) -> None: ...

class BankReceipt(_message.Message):
    __slots__ = ("bank",)
    BANK_FIELD_NUMBER: _ClassVar[int]
    bank: int
    def __init__(self, bank: _Optional[int] = ...) -> None: ...

class Hyperparameters(_message.Message):
    __slots__ = ("epochs", "batch", "learning_rate", "bits", "seed", "stochastic", "error_feedback", "objective", "transforms", "report_loss")
    EPOCHS_FIELD_NUMBER: _ClassVar[int]
    BATCH_FIELD_NUMBER: _ClassVar[int]
    LEARNING_RATE_FIELD_NUMBER: _ClassVar[int]
    BITS_FIELD_NUMBER: _ClassVar[int]
    SEED_FIELD_NUMBER: _ClassVar[int]
    STOCHASTIC_FIELD_NUMBER: _ClassVar[int]
    ERROR_FEEDBACK_FIELD_NUMBER: _ClassVar[int]
    OBJECTIVE_FIELD_NUMBER: _ClassVar[int]
    TRANSFORMS_FIELD_NUMBER: _ClassVar[int]
    REPORT_LOSS_FIELD_NUMBER: _ClassVar[int]
    epochs: int
    batch: int
    learning_rate: float
    bits: int
    seed: int
    stochastic: bool
    error_feedback: bool
    objective: Objective
    transforms: str
    report_loss: bool
    def __init__(self, epochs: _Optional[int] = ..., batch: _Optional[int] = ..., learning_rate: _Optional[float] = ..., bits: _Optional[int] = ..., seed: _Optional[int] = ..., stochastic: bool = ..., error_feedback: bool = ..., objective: _Optional[_Union[Objective, str]] = ..., transforms: _Optional[str] = ..., report_loss: bool = ...) -> None: ...

class Broadcast(_message.Message):
    __slots__ = ("bank", "task", "round", "scale", "coefficients", "hyperparameters", "bits", "head_kind", "head", "start_head", "candidates", "kept", "mix", "wants_mix", "counted", "secure")
    BANK_FIELD_NUMBER: _ClassVar[int]
    TASK_FIELD_NUMBER: _ClassVar[int]
    ROUND_FIELD_NUMBER: _ClassVar[int]
    SCALE_FIELD_NUMBER: _ClassVar[int]
    COEFFICIENTS_FIELD_NUMBER: _ClassVar[int]
    HYPERPARAMETERS_FIELD_NUMBER: _ClassVar[int]
    BITS_FIELD_NUMBER: _ClassVar[int]
    HEAD_KIND_FIELD_NUMBER: _ClassVar[int]
    HEAD_FIELD_NUMBER: _ClassVar[int]
    START_HEAD_FIELD_NUMBER: _ClassVar[int]
    CANDIDATES_FIELD_NUMBER: _ClassVar[int]
    KEPT_FIELD_NUMBER: _ClassVar[int]
    MIX_FIELD_NUMBER: _ClassVar[int]
    WANTS_MIX_FIELD_NUMBER: _ClassVar[int]
    COUNTED_FIELD_NUMBER: _ClassVar[int]
    SECURE_FIELD_NUMBER: _ClassVar[int]
    bank: int
    task: int
    round: int
    scale: float
    coefficients: bytes
    hyperparameters: Hyperparameters
    bits: int
    head_kind: HeadKind
    head: bytes
    start_head: bytes
    candidates: _containers.RepeatedCompositeFieldContainer[Candidate]
    kept: KeptHead
    mix: bytes
    wants_mix: bool
    counted: int
    secure: SecureRound
    def __init__(self, bank: _Optional[int] = ..., task: _Optional[int] = ..., round: _Optional[int] = ..., scale: _Optional[float] = ..., coefficients: _Optional[bytes] = ..., hyperparameters: _Optional[_Union[Hyperparameters, _Mapping]] = ..., bits: _Optional[int] = ..., head_kind: _Optional[_Union[HeadKind, str]] = ..., head: _Optional[bytes] = ..., start_head: _Optional[bytes] = ..., candidates: _Optional[_Iterable[_Union[Candidate, _Mapping]]] = ..., kept: _Optional[_Union[KeptHead, _Mapping]] = ..., mix: _Optional[bytes] = ..., wants_mix: bool = ..., counted: _Optional[int] = ..., secure: _Optional[_Union[SecureRound, _Mapping]] = ...) -> None: ...

class SecureRound(_message.Message):
    __slots__ = ("roster", "nonce", "width", "levels", "step", "unit", "clips", "alike", "within", "deviation")
    ROSTER_FIELD_NUMBER: _ClassVar[int]
    NONCE_FIELD_NUMBER: _ClassVar[int]
    WIDTH_FIELD_NUMBER: _ClassVar[int]
    LEVELS_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    UNIT_FIELD_NUMBER: _ClassVar[int]
    CLIPS_FIELD_NUMBER: _ClassVar[int]
    ALIKE_FIELD_NUMBER: _ClassVar[int]
    WITHIN_FIELD_NUMBER: _ClassVar[int]
    DEVIATION_FIELD_NUMBER: _ClassVar[int]
    roster: int
    nonce: int
    width: int
    levels: int
    step: float
    unit: float
    clips: bool
    alike: bool
    within: bool
    deviation: float
    def __init__(self, roster: _Optional[int] = ..., nonce: _Optional[int] = ..., width: _Optional[int] = ..., levels: _Optional[int] = ..., step: _Optional[float] = ..., unit: _Optional[float] = ..., clips: bool = ..., alike: bool = ..., within: bool = ..., deviation: _Optional[float] = ...) -> None: ...

class SecureMember(_message.Message):
    __slots__ = ("public", "certificate", "signature")
    PUBLIC_FIELD_NUMBER: _ClassVar[int]
    CERTIFICATE_FIELD_NUMBER: _ClassVar[int]
    SIGNATURE_FIELD_NUMBER: _ClassVar[int]
    public: bytes
    certificate: bytes
    signature: bytes
    def __init__(self, public: _Optional[bytes] = ..., certificate: _Optional[bytes] = ..., signature: _Optional[bytes] = ...) -> None: ...

class KeyRequest(_message.Message):
    __slots__ = ("roster", "members", "challenge")
    ROSTER_FIELD_NUMBER: _ClassVar[int]
    MEMBERS_FIELD_NUMBER: _ClassVar[int]
    CHALLENGE_FIELD_NUMBER: _ClassVar[int]
    roster: int
    members: _containers.RepeatedCompositeFieldContainer[SecureMember]
    challenge: bytes
    def __init__(self, roster: _Optional[int] = ..., members: _Optional[_Iterable[_Union[SecureMember, _Mapping]]] = ..., challenge: _Optional[bytes] = ...) -> None: ...

class KeyReply(_message.Message):
    __slots__ = ("member", "roster", "least", "proof")
    MEMBER_FIELD_NUMBER: _ClassVar[int]
    ROSTER_FIELD_NUMBER: _ClassVar[int]
    LEAST_FIELD_NUMBER: _ClassVar[int]
    PROOF_FIELD_NUMBER: _ClassVar[int]
    member: SecureMember
    roster: int
    least: int
    proof: bytes
    def __init__(self, member: _Optional[_Union[SecureMember, _Mapping]] = ..., roster: _Optional[int] = ..., least: _Optional[int] = ..., proof: _Optional[bytes] = ...) -> None: ...

class Opening(_message.Message):
    __slots__ = ("bank", "task", "round", "roster", "nonce", "width", "survivors", "shares")
    BANK_FIELD_NUMBER: _ClassVar[int]
    TASK_FIELD_NUMBER: _ClassVar[int]
    ROUND_FIELD_NUMBER: _ClassVar[int]
    ROSTER_FIELD_NUMBER: _ClassVar[int]
    NONCE_FIELD_NUMBER: _ClassVar[int]
    WIDTH_FIELD_NUMBER: _ClassVar[int]
    SURVIVORS_FIELD_NUMBER: _ClassVar[int]
    SHARES_FIELD_NUMBER: _ClassVar[int]
    bank: int
    task: int
    round: int
    roster: int
    nonce: int
    width: int
    survivors: bytes
    shares: bytes
    def __init__(self, bank: _Optional[int] = ..., task: _Optional[int] = ..., round: _Optional[int] = ..., roster: _Optional[int] = ..., nonce: _Optional[int] = ..., width: _Optional[int] = ..., survivors: _Optional[bytes] = ..., shares: _Optional[bytes] = ...) -> None: ...

class Opened(_message.Message):
    __slots__ = ("bank", "task", "round", "share", "forged")
    BANK_FIELD_NUMBER: _ClassVar[int]
    TASK_FIELD_NUMBER: _ClassVar[int]
    ROUND_FIELD_NUMBER: _ClassVar[int]
    SHARE_FIELD_NUMBER: _ClassVar[int]
    FORGED_FIELD_NUMBER: _ClassVar[int]
    bank: int
    task: int
    round: int
    share: bytes
    forged: bytes
    def __init__(self, bank: _Optional[int] = ..., task: _Optional[int] = ..., round: _Optional[int] = ..., share: _Optional[bytes] = ..., forged: _Optional[bytes] = ...) -> None: ...

class KeptHead(_message.Message):
    __slots__ = ("id", "scale", "coefficients", "bits", "head_kind", "head")
    ID_FIELD_NUMBER: _ClassVar[int]
    SCALE_FIELD_NUMBER: _ClassVar[int]
    COEFFICIENTS_FIELD_NUMBER: _ClassVar[int]
    BITS_FIELD_NUMBER: _ClassVar[int]
    HEAD_KIND_FIELD_NUMBER: _ClassVar[int]
    HEAD_FIELD_NUMBER: _ClassVar[int]
    id: int
    scale: float
    coefficients: bytes
    bits: int
    head_kind: HeadKind
    head: bytes
    def __init__(self, id: _Optional[int] = ..., scale: _Optional[float] = ..., coefficients: _Optional[bytes] = ..., bits: _Optional[int] = ..., head_kind: _Optional[_Union[HeadKind, str]] = ..., head: _Optional[bytes] = ...) -> None: ...

class Candidate(_message.Message):
    __slots__ = ("task", "scale", "coefficients")
    TASK_FIELD_NUMBER: _ClassVar[int]
    SCALE_FIELD_NUMBER: _ClassVar[int]
    COEFFICIENTS_FIELD_NUMBER: _ClassVar[int]
    task: int
    scale: float
    coefficients: bytes
    def __init__(self, task: _Optional[int] = ..., scale: _Optional[float] = ..., coefficients: _Optional[bytes] = ...) -> None: ...

class Update(_message.Message):
    __slots__ = ("bank", "task", "round", "examples", "scale", "coefficients", "mix", "started", "loss", "salt", "shares")
    BANK_FIELD_NUMBER: _ClassVar[int]
    TASK_FIELD_NUMBER: _ClassVar[int]
    ROUND_FIELD_NUMBER: _ClassVar[int]
    EXAMPLES_FIELD_NUMBER: _ClassVar[int]
    SCALE_FIELD_NUMBER: _ClassVar[int]
    COEFFICIENTS_FIELD_NUMBER: _ClassVar[int]
    MIX_FIELD_NUMBER: _ClassVar[int]
    STARTED_FIELD_NUMBER: _ClassVar[int]
    LOSS_FIELD_NUMBER: _ClassVar[int]
    SALT_FIELD_NUMBER: _ClassVar[int]
    SHARES_FIELD_NUMBER: _ClassVar[int]
    bank: int
    task: int
    round: int
    examples: int
    scale: float
    coefficients: bytes
    mix: bytes
    started: int
    loss: int
    salt: bytes
    shares: bytes
    def __init__(self, bank: _Optional[int] = ..., task: _Optional[int] = ..., round: _Optional[int] = ..., examples: _Optional[int] = ..., scale: _Optional[float] = ..., coefficients: _Optional[bytes] = ..., mix: _Optional[bytes] = ..., started: _Optional[int] = ..., loss: _Optional[int] = ..., salt: _Optional[bytes] = ..., shares: _Optional[bytes] = ...) -> None: ...

class Evaluation(_message.Message):
    __slots__ = ("bank", "task", "round", "examples", "correct", "head_only_correct", "deployed_correct", "local_head_correct", "chosen_correct")
    BANK_FIELD_NUMBER: _ClassVar[int]
    TASK_FIELD_NUMBER: _ClassVar[int]
    ROUND_FIELD_NUMBER: _ClassVar[int]
    EXAMPLES_FIELD_NUMBER: _ClassVar[int]
    CORRECT_FIELD_NUMBER: _ClassVar[int]
    HEAD_ONLY_CORRECT_FIELD_NUMBER: _ClassVar[int]
    DEPLOYED_CORRECT_FIELD_NUMBER: _ClassVar[int]
    LOCAL_HEAD_CORRECT_FIELD_NUMBER: _ClassVar[int]
    CHOSEN_CORRECT_FIELD_NUMBER: _ClassVar[int]
    bank: int
    task: int
    round: int
    examples: int
    correct: int
    head_only_correct: int
    deployed_correct: int
    local_head_correct: int
    chosen_correct: int
    def __init__(self, bank: _Optional[int] = ..., task: _Optional[int] = ..., round: _Optional[int] = ..., examples: _Optional[int] = ..., correct: _Optional[int] = ..., head_only_correct: _Optional[int] = ..., deployed_correct: _Optional[int] = ..., local_head_correct: _Optional[int] = ..., chosen_correct: _Optional[int] = ...) -> None: ...

class HeadStatistics(_message.Message):
    __slots__ = ("bank", "task", "round", "content")
    BANK_FIELD_NUMBER: _ClassVar[int]
    TASK_FIELD_NUMBER: _ClassVar[int]
    ROUND_FIELD_NUMBER: _ClassVar[int]
    CONTENT_FIELD_NUMBER: _ClassVar[int]
    bank: int
    task: int
    round: int
    content: bytes
    def __init__(self, bank: _Optional[int] = ..., task: _Optional[int] = ..., round: _Optional[int] = ..., content: _Optional[bytes] = ...) -> None: ...

class Refusal(_message.Message):
    __slots__ = ("reason", "task", "round", "detail")
    class Reason(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        REASON_UNSPECIFIED: _ClassVar[Refusal.Reason]
        REASON_BANK_MISSING: _ClassVar[Refusal.Reason]
        REASON_BANK_MISMATCH: _ClassVar[Refusal.Reason]
        REASON_UNKNOWN_TASK: _ClassVar[Refusal.Reason]
        REASON_NO_DATA: _ClassVar[Refusal.Reason]
        REASON_ONE_CLASS: _ClassVar[Refusal.Reason]
        REASON_MALFORMED: _ClassVar[Refusal.Reason]
        REASON_NOT_FINITE: _ClassVar[Refusal.Reason]
        REASON_FAILED: _ClassVar[Refusal.Reason]
        REASON_CLASSES: _ClassVar[Refusal.Reason]
        REASON_HEAD_MISSING: _ClassVar[Refusal.Reason]
        REASON_ROSTER: _ClassVar[Refusal.Reason]
        REASON_CONTRADICTS: _ClassVar[Refusal.Reason]
    REASON_UNSPECIFIED: Refusal.Reason
    REASON_BANK_MISSING: Refusal.Reason
    REASON_BANK_MISMATCH: Refusal.Reason
    REASON_UNKNOWN_TASK: Refusal.Reason
    REASON_NO_DATA: Refusal.Reason
    REASON_ONE_CLASS: Refusal.Reason
    REASON_MALFORMED: Refusal.Reason
    REASON_NOT_FINITE: Refusal.Reason
    REASON_FAILED: Refusal.Reason
    REASON_CLASSES: Refusal.Reason
    REASON_HEAD_MISSING: Refusal.Reason
    REASON_ROSTER: Refusal.Reason
    REASON_CONTRADICTS: Refusal.Reason
    REASON_FIELD_NUMBER: _ClassVar[int]
    TASK_FIELD_NUMBER: _ClassVar[int]
    ROUND_FIELD_NUMBER: _ClassVar[int]
    DETAIL_FIELD_NUMBER: _ClassVar[int]
    reason: Refusal.Reason
    task: int
    round: int
    detail: str
    def __init__(self, reason: _Optional[_Union[Refusal.Reason, str]] = ..., task: _Optional[int] = ..., round: _Optional[int] = ..., detail: _Optional[str] = ...) -> None: ...

class ToClient(_message.Message):
    __slots__ = ("hello", "bank", "train", "evaluate", "head", "keys", "open")
    HELLO_FIELD_NUMBER: _ClassVar[int]
    BANK_FIELD_NUMBER: _ClassVar[int]
    TRAIN_FIELD_NUMBER: _ClassVar[int]
    EVALUATE_FIELD_NUMBER: _ClassVar[int]
    HEAD_FIELD_NUMBER: _ClassVar[int]
    KEYS_FIELD_NUMBER: _ClassVar[int]
    OPEN_FIELD_NUMBER: _ClassVar[int]
    hello: HelloRequest
    bank: BankDelivery
    train: Broadcast
    evaluate: Broadcast
    head: Broadcast
    keys: KeyRequest
    open: Opening
    def __init__(self, hello: _Optional[_Union[HelloRequest, _Mapping]] = ..., bank: _Optional[_Union[BankDelivery, _Mapping]] = ..., train: _Optional[_Union[Broadcast, _Mapping]] = ..., evaluate: _Optional[_Union[Broadcast, _Mapping]] = ..., head: _Optional[_Union[Broadcast, _Mapping]] = ..., keys: _Optional[_Union[KeyRequest, _Mapping]] = ..., open: _Optional[_Union[Opening, _Mapping]] = ...) -> None: ...

class ToServer(_message.Message):
    __slots__ = ("hello", "bank", "update", "evaluation", "refusal", "head", "keys", "opened")
    HELLO_FIELD_NUMBER: _ClassVar[int]
    BANK_FIELD_NUMBER: _ClassVar[int]
    UPDATE_FIELD_NUMBER: _ClassVar[int]
    EVALUATION_FIELD_NUMBER: _ClassVar[int]
    REFUSAL_FIELD_NUMBER: _ClassVar[int]
    HEAD_FIELD_NUMBER: _ClassVar[int]
    KEYS_FIELD_NUMBER: _ClassVar[int]
    OPENED_FIELD_NUMBER: _ClassVar[int]
    hello: Hello
    bank: BankReceipt
    update: Update
    evaluation: Evaluation
    refusal: Refusal
    head: HeadStatistics
    keys: KeyReply
    opened: Opened
    def __init__(self, hello: _Optional[_Union[Hello, _Mapping]] = ..., bank: _Optional[_Union[BankReceipt, _Mapping]] = ..., update: _Optional[_Union[Update, _Mapping]] = ..., evaluation: _Optional[_Union[Evaluation, _Mapping]] = ..., refusal: _Optional[_Union[Refusal, _Mapping]] = ..., head: _Optional[_Union[HeadStatistics, _Mapping]] = ..., keys: _Optional[_Union[KeyReply, _Mapping]] = ..., opened: _Optional[_Union[Opened, _Mapping]] = ...) -> None: ...
