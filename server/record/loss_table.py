"""The table of training losses."""

from __future__ import annotations

from sqlalchemy import CheckConstraint, ForeignKeyConstraint
from sqlalchemy.orm import Mapped, mapped_column

from server.record.tables import Base


class LossEntry(Base, kw_only=True):
    """A client's mean training loss in the last pass of a round, over ``examples`` images."""

    __tablename__ = "losses"
    __table_args__ = (
        ForeignKeyConstraint(["run", "task"], ["tasks.run", "tasks.number"]),
        CheckConstraint("round > 0 AND examples > 0"),
    )
    run: Mapped[int] = mapped_column(primary_key=True)
    task: Mapped[int] = mapped_column(primary_key=True)
    round: Mapped[int] = mapped_column(primary_key=True)
    client: Mapped[str] = mapped_column(primary_key=True)
    loss: Mapped[float]
    examples: Mapped[int]
