"""Schema 12: ledger rows that sum up several messages; whose folder a run is, and who writes."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"

_LARGE = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Add the columns with what rows of before are, and the table."""
    messages = sa.Column("messages", sa.Integer, nullable=False, server_default="1")
    op.add_column("ledger", messages)
    op.add_column("ledger", sa.Column("longest", _LARGE, nullable=True))
    times = sa.Column("times", sa.Integer, nullable=False, server_default="1")
    op.add_column("refusals", times)
    op.create_table(
        "folders",
        sa.Column("run", sa.Integer, sa.ForeignKey("runs.id"), primary_key=True),
        sa.Column("folder", sa.String, nullable=False, index=True),
    )
    op.create_table(
        "writers",
        sa.Column("folder", sa.String, primary_key=True),
        sa.Column("writer", sa.String, nullable=False),
        sa.Column("writes", _LARGE, nullable=False),
    )
