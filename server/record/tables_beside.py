"""Tables beside: whose runs, who writes, label mixes, what tasks went back from, suspects, air."""

from __future__ import annotations

from sqlalchemy import CheckConstraint, ForeignKey, ForeignKeyConstraint
from sqlalchemy.orm import Mapped, mapped_column
from sqlalchemy.types import LargeBinary, String

from server.record.rows import Direction
from server.record.tables import Base, Large


class Folder(Base, kw_only=True):
    """Which folder a run is of, in a database that several folders share."""

    __tablename__ = "folders"
    run: Mapped[int] = mapped_column(ForeignKey("runs.id"), primary_key=True)
    folder: Mapped[str] = mapped_column(index=True)


class Writer(Base, kw_only=True):
    """How many writes a folder's server has committed to a database: it asks when it was cut off.

    The database's own numbers of transactions do not tell: after a crash it uses some again.
    """

    __tablename__ = "writers"
    folder: Mapped[str] = mapped_column(primary_key=True)
    writer: Mapped[str]
    writes: Mapped[int] = mapped_column(Large)


class Rewind(Base, kw_only=True):
    """A task is to go back, or has gone back (``done``), to ``round`` from ``before``."""

    __tablename__ = "rewinds"
    __table_args__ = (
        ForeignKeyConstraint(["run", "task"], ["tasks.run", "tasks.number"]),
        CheckConstraint("round >= 0 AND before > round"),
    )
    id: Mapped[int] = mapped_column(primary_key=True, init=False)
    run: Mapped[int]
    task: Mapped[int]
    round: Mapped[int]
    before: Mapped[int]
    asked: Mapped[str]
    done: Mapped[str | None] = mapped_column(default=None)


class RewoundRound(Base, kw_only=True):
    """A round that was recorded, and from which its task went back."""

    __tablename__ = "rewound_rounds"
    rewind: Mapped[int] = mapped_column(ForeignKey("rewinds.id"), primary_key=True)
    round: Mapped[int] = mapped_column(primary_key=True)
    count: Mapped[int]
    coefficients: Mapped[bytes] = mapped_column(LargeBinary, repr=False)
    examples: Mapped[int]
    clients: Mapped[int]
    recorded: Mapped[str]


class RewoundAccuracy(Base, kw_only=True):
    """An evaluation of a round from which its task went back."""

    __tablename__ = "rewound_accuracies"
    id: Mapped[int] = mapped_column(primary_key=True, init=False)
    rewind: Mapped[int] = mapped_column(ForeignKey("rewinds.id"))
    round: Mapped[int]
    after_task: Mapped[int]
    accuracy: Mapped[float]
    examples: Mapped[int]
    clients: Mapped[int]


class LabelMix(Base, kw_only=True):
    """The fleet's label mix of a task without labels, packed: ``recast_core.label_mix``."""

    __tablename__ = "label_mixes"
    __table_args__ = (ForeignKeyConstraint(["run", "task"], ["tasks.run", "tasks.number"]),)
    run: Mapped[int] = mapped_column(primary_key=True)
    task: Mapped[int] = mapped_column(primary_key=True)
    content: Mapped[bytes] = mapped_column(LargeBinary)


class SuspectEntry(Base, kw_only=True):
    """A client of which it is suspected that it spoiled a hidden sum of a task, by its node id."""

    __tablename__ = "suspects"
    __table_args__ = (ForeignKeyConstraint(["run", "task"], ["tasks.run", "tasks.number"]),)
    run: Mapped[int] = mapped_column(primary_key=True)
    task: Mapped[int] = mapped_column(primary_key=True)
    client: Mapped[str] = mapped_column(primary_key=True)


class AirEntry(Base, kw_only=True):
    """Frames that a device of a run sent, or was sent, as far as this side knows of them."""

    __tablename__ = "air"
    __table_args__ = (
        CheckConstraint("direction IN ('up', 'down')"),
        CheckConstraint("frames >= 0 AND bytes >= 0 AND seconds >= 0"),
    )
    run: Mapped[int] = mapped_column(ForeignKey("runs.id"), primary_key=True)
    client: Mapped[str] = mapped_column(primary_key=True)
    direction: Mapped[Direction] = mapped_column(String, primary_key=True)
    frames: Mapped[int]
    bytes: Mapped[int] = mapped_column(Large)
    seconds: Mapped[float]
