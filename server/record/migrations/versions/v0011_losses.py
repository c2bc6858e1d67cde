"""Schema 11: clients' training losses."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"


def upgrade() -> None:
    """Create the table, unless it was there before revisions were noted."""
    if sa.inspect(op.get_bind()).has_table("losses"):
        return
    op.create_table(
        "losses",
        sa.Column("run", sa.Integer, primary_key=True),
        sa.Column("task", sa.Integer, primary_key=True),
        sa.Column("round", sa.Integer, primary_key=True),
        sa.Column("client", sa.String, primary_key=True),
        sa.Column("loss", sa.Double, nullable=False),
        sa.Column("examples", sa.Integer, nullable=False),
        sa.ForeignKeyConstraint(["run", "task"], ["tasks.run", "tasks.number"]),
        sa.CheckConstraint("round > 0 AND examples > 0"),
    )
