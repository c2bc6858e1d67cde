"""Schema 13: a budget may be spent by noise that clients add together."""

from __future__ import annotations

from alembic import op

revision = "0013"
down_revision = "0012"

_BEFORE, _AFTER = "kind IN ('central', 'local')", "kind IN ('central', 'local', 'distributed')"


def upgrade() -> None:
    """Let the account take the kind."""
    bind = op.get_bind()
    if bind.dialect.name != "sqlite":
        op.drop_constraint("privacy_kind_check", "privacy", type_="check")
        op.create_check_constraint("privacy_kind_check", "privacy", _AFTER)
        return
    bind.exec_driver_sql("PRAGMA writable_schema = ON")
    bind.exec_driver_sql(
        "UPDATE sqlite_master SET sql = replace(sql, ?, ?) WHERE name = 'privacy'",
        (_BEFORE, _AFTER),
    )
    bind.exec_driver_sql("PRAGMA writable_schema = RESET")
