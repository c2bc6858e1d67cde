"""Schema 10: the fleet's label mix of a task without labels."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"


def upgrade() -> None:
    """Create the table, unless it was there before revisions were noted."""
    if sa.inspect(op.get_bind()).has_table("label_mixes"):
        return
    op.create_table(
        "label_mixes",
        sa.Column("run", sa.Integer, primary_key=True),
        sa.Column("task", sa.Integer, primary_key=True),
        sa.Column("content", sa.LargeBinary, nullable=False),
        sa.ForeignKeyConstraint(["run", "task"], ["tasks.run", "tasks.number"]),
    )
