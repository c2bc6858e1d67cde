"""The tables of the registry's database."""

from __future__ import annotations

from typing import Any, get_args

from sqlalchemy import (
    JSON,
    BigInteger,
    CheckConstraint,
    Double,
    ForeignKey,
    ForeignKeyConstraint,
    Integer,
    UniqueConstraint,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, MappedAsDataclass, mapped_column
from sqlalchemy.types import LargeBinary, String

from server.record.rows import Direction, Kind, Layer, Privacy, Sampling, Status

# The last revision in ``migrations``; one is made of any since the oldest when it is opened.
SCHEMA = 16
OLDEST = 2
# Where Alembic notes the revision, apart from that of other programs in the same database.
VERSIONS = "recast_version"

# SQLite numbers rows in a column of exactly its own kind of integer, which has 64 bits anyway.
Large = BigInteger().with_variant(Integer, "sqlite")


class Base(MappedAsDataclass, DeclarativeBase, kw_only=True):
    """Common base of the tables."""

    type_annotation_map = {float: Double}  # noqa: RUF012  # as SQLAlchemy wants it


def _one_of(column: str, values: object) -> CheckConstraint:
    listed = ", ".join(f"'{value}'" for value in get_args(values))
    return CheckConstraint(f"{column} IN ({listed})")


def _task_by_name() -> ForeignKeyConstraint:
    return ForeignKeyConstraint(["run", "task"], ["tasks.run", "tasks.name"])


class Run(Base, kw_only=True):
    """One run of a federation with one bank. Times are ISO 8601 in UTC.

    ``closed`` says that no further task is to be awaited.
    """

    __tablename__ = "runs"
    __table_args__ = (
        _one_of("status", Status),
        CheckConstraint("length(bank_sha256) = 32"),
        {"sqlite_autoincrement": True},
    )
    id: Mapped[int] = mapped_column(primary_key=True, init=False)
    status: Mapped[Status] = mapped_column(String)
    command: Mapped[str]
    config: Mapped[dict[str, Any]] = mapped_column(JSON)
    versions: Mapped[dict[str, Any]] = mapped_column(JSON)
    bank_sha256: Mapped[bytes] = mapped_column(LargeBinary)
    started: Mapped[str]
    finished: Mapped[str | None] = mapped_column(default=None)
    closed: Mapped[bool] = mapped_column(default=False)


class Task(Base, kw_only=True):
    """A task of a run; ``number`` counts from 1 in the order of adding.

    ``source`` is its DATA specification, empty where clients have folders of their own. The counts
    are 0 until clients have announced the task.
    """

    __tablename__ = "tasks"
    __table_args__ = (
        UniqueConstraint("run", "name"),
        CheckConstraint("classes >= 0 AND examples >= 0 AND clients >= 0 AND name <> ''"),
    )
    run: Mapped[int] = mapped_column(ForeignKey("runs.id"), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    classes: Mapped[int]
    examples: Mapped[int]
    clients: Mapped[int]
    source: Mapped[str] = mapped_column(default="")


class Round(Base, kw_only=True):
    """A finished round: the task's aggregated coefficients, ``count`` little-endian float32."""

    __tablename__ = "rounds"
    __table_args__ = (
        UniqueConstraint("run", "task", "round"),
        ForeignKeyConstraint(["run", "task"], ["tasks.run", "tasks.number"]),
        CheckConstraint("round > 0 AND count >= 0 AND examples >= 0 AND clients >= 0"),
        CheckConstraint("accuracy BETWEEN 0 AND 1"),
    )
    id: Mapped[int] = mapped_column(primary_key=True, init=False)
    run: Mapped[int]
    task: Mapped[int]
    round: Mapped[int]
    count: Mapped[int]
    coefficients: Mapped[bytes] = mapped_column(LargeBinary, repr=False)
    examples: Mapped[int]
    clients: Mapped[int]
    seconds: Mapped[float]
    accuracy: Mapped[float | None]
    recorded: Mapped[str]


class Accuracy(Base, kw_only=True):
    """One evaluation of ``task``, with the coefficients of ``round``, after ``after_task``.

    Accuracies are fractions of ``examples`` held-out examples over ``clients`` clients; registries
    of before schema 16 do not say when one was recorded.
    """

    __tablename__ = "accuracies"
    __table_args__ = (
        ForeignKeyConstraint(["run", "task"], ["tasks.run", "tasks.number"]),
        ForeignKeyConstraint(["run", "after_task"], ["tasks.run", "tasks.number"]),
        CheckConstraint("accuracy BETWEEN 0 AND 1 AND head_only_accuracy BETWEEN 0 AND 1"),
        CheckConstraint("round >= 0 AND examples > 0 AND clients > 0"),
    )
    id: Mapped[int] = mapped_column(primary_key=True, init=False)
    run: Mapped[int] = mapped_column(index=True)
    task: Mapped[int]
    round: Mapped[int]
    after_task: Mapped[int]
    accuracy: Mapped[float]
    head_only_accuracy: Mapped[float | None]
    examples: Mapped[int]
    clients: Mapped[int]
    recorded: Mapped[str | None] = mapped_column(default=None)


class Median(Base, kw_only=True):
    """The median over the clients of what each measured in an evaluation."""

    __tablename__ = "medians"
    __table_args__ = (CheckConstraint("median BETWEEN 0 AND 1"),)
    evaluation: Mapped[int] = mapped_column(ForeignKey("accuracies.id"), primary_key=True)
    median: Mapped[float]


class HeldBack(Base, kw_only=True):
    """An update of which the rule of a round let only a share count."""

    __tablename__ = "held_back"
    __table_args__ = (
        ForeignKeyConstraint(["run", "task"], ["tasks.run", "tasks.number"]),
        CheckConstraint("round > 0 AND share BETWEEN 0 AND 1"),
    )
    run: Mapped[int] = mapped_column(primary_key=True)
    task: Mapped[int] = mapped_column(primary_key=True)
    round: Mapped[int] = mapped_column(primary_key=True)
    client: Mapped[str] = mapped_column(primary_key=True)
    share: Mapped[float]


class Baseline(Base, kw_only=True):
    """What a method that sends nothing reaches in an evaluation."""

    __tablename__ = "baselines"
    __table_args__ = (
        ForeignKeyConstraint(["run", "task"], ["tasks.run", "tasks.number"]),
        CheckConstraint("accuracy BETWEEN 0 AND 1 AND name <> ''"),
    )
    run: Mapped[int] = mapped_column(primary_key=True)
    task: Mapped[int] = mapped_column(primary_key=True)
    after_task: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(primary_key=True)
    accuracy: Mapped[float]


class LedgerEntry(Base, kw_only=True):
    """A stored :class:`LedgerRow`: of one message, or the sum of ``messages`` of other clients."""

    __tablename__ = "ledger"
    __table_args__ = (
        _task_by_name(),
        _one_of("direction", Direction),
        _one_of("kind", Kind),
        _one_of("layer", Layer),
        CheckConstraint("bytes >= 0 AND round >= 0"),
    )
    id: Mapped[int] = mapped_column(Large, primary_key=True, init=False)
    run: Mapped[int] = mapped_column(ForeignKey("runs.id"), index=True)
    task: Mapped[str | None]
    round: Mapped[int]
    client: Mapped[str]
    direction: Mapped[Direction] = mapped_column(String)
    kind: Mapped[Kind] = mapped_column(String)
    layer: Mapped[Layer] = mapped_column(String)
    bytes: Mapped[int] = mapped_column(Large)
    messages: Mapped[int] = mapped_column(default=1, server_default="1")
    longest: Mapped[int | None] = mapped_column(Large, default=None)


class RefusalEntry(Base, kw_only=True):
    """A stored :class:`Refusal`, or ``times`` of other clients."""

    __tablename__ = "refusals"
    __table_args__ = (_task_by_name(), CheckConstraint("round >= 0 AND reason <> ''"))
    id: Mapped[int] = mapped_column(Large, primary_key=True, init=False)
    run: Mapped[int] = mapped_column(ForeignKey("runs.id"), index=True)
    client: Mapped[str]
    task: Mapped[str | None]
    round: Mapped[int]
    reason: Mapped[str]
    detail: Mapped[str]
    times: Mapped[int] = mapped_column(default=1, server_default="1")


class SpendingEntry(Base, kw_only=True):
    """A stored :class:`Spending`. Rows are only added, whatever becomes of the round."""

    __tablename__ = "privacy"
    __table_args__ = (
        ForeignKeyConstraint(["run", "task"], ["tasks.run", "tasks.number"]),
        _one_of("kind", Privacy),
        _one_of("sampling", Sampling),
        CheckConstraint("round > 0 AND noise > 0 AND clip > 0 AND rate > 0 AND rate <= 1"),
    )
    id: Mapped[int] = mapped_column(primary_key=True, init=False)
    run: Mapped[int] = mapped_column(index=True)
    task: Mapped[int]
    round: Mapped[int]
    kind: Mapped[Privacy] = mapped_column(String)
    noise: Mapped[float]
    rate: Mapped[float]
    sampling: Mapped[Sampling] = mapped_column(String)
    clip: Mapped[float]
    threshold: Mapped[float]
    within: Mapped[float | None]
    task_epsilon: Mapped[float]
    epsilon: Mapped[float]
    delta: Mapped[float]
    seeded: Mapped[bool]


class ClassEntry(Base, kw_only=True):
    """The name of one of a task's classes, by the id that stands for it."""

    __tablename__ = "class_names"
    __table_args__ = (
        ForeignKeyConstraint(["run", "task"], ["tasks.run", "tasks.number"]),
        CheckConstraint("id >= 0 AND name <> ''"),
    )
    run: Mapped[int] = mapped_column(primary_key=True)
    task: Mapped[int] = mapped_column(primary_key=True)
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]


class HeadEntry(Base, kw_only=True):
    """A head that travels, as clients are sent it: a task's own, or the earlier one's it keeps."""

    __tablename__ = "heads"
    __table_args__ = (ForeignKeyConstraint(["run", "task"], ["tasks.run", "tasks.number"]),)
    run: Mapped[int] = mapped_column(primary_key=True)
    task: Mapped[int] = mapped_column(primary_key=True)
    kind: Mapped[str]
    content: Mapped[bytes] = mapped_column(LargeBinary, repr=False)


class ShareEntry(Base, kw_only=True):
    """How many images of a task a client announced."""

    __tablename__ = "shares"
    __table_args__ = (
        ForeignKeyConstraint(["run", "task"], ["tasks.run", "tasks.number"]),
        CheckConstraint("train_examples >= 0 AND test_examples >= 0"),
    )
    run: Mapped[int] = mapped_column(primary_key=True)
    task: Mapped[int] = mapped_column(primary_key=True)
    client: Mapped[str] = mapped_column(primary_key=True)
    train_examples: Mapped[int]
    test_examples: Mapped[int]


class ClientName(Base, kw_only=True):
    """What people call a client: its certificate's name, or its number in a simulation."""

    __tablename__ = "client_names"
    __table_args__ = (CheckConstraint("name <> ''"),)
    run: Mapped[int] = mapped_column(ForeignKey("runs.id"), primary_key=True)
    client: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str]
