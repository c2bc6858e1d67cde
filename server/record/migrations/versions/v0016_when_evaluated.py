"""Schema 16: when an evaluation was recorded."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0016"
down_revision = "0015"


def upgrade() -> None:
    """Add the column; of earlier evaluations it is not known."""
    op.add_column("accuracies", sa.Column("recorded", sa.String, nullable=True))
