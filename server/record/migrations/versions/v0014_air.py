"""Schema 14: frames and seconds on the air of a run over LoRaWAN."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"

_LARGE = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Create the table, unless it is there."""
    if sa.inspect(op.get_bind()).has_table("air"):
        return
    op.create_table(
        "air",
        sa.Column("run", sa.Integer, sa.ForeignKey("runs.id"), primary_key=True),
        sa.Column("client", sa.String, primary_key=True),
        sa.Column("direction", sa.String, primary_key=True),
        sa.Column("frames", sa.Integer, nullable=False),
        sa.Column("bytes", _LARGE, nullable=False),
        sa.Column("seconds", sa.Double, nullable=False),
        sa.CheckConstraint("direction IN ('up', 'down')"),
        sa.CheckConstraint("frames >= 0 AND bytes >= 0 AND seconds >= 0"),
    )
