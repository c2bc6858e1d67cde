"""Schema 15: of whom it is suspected that they spoiled a hidden sum of a task."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"


def upgrade() -> None:
    """Create the table, unless it is there."""
    if sa.inspect(op.get_bind()).has_table("suspects"):
        return
    op.create_table(
        "suspects",
        sa.Column("run", sa.Integer, primary_key=True),
        sa.Column("task", sa.Integer, primary_key=True),
        sa.Column("client", sa.String, primary_key=True),
        sa.ForeignKeyConstraint(["run", "task"], ["tasks.run", "tasks.number"]),
    )
