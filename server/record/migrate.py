"""Make a registry of an earlier schema, or of none, one of today."""

from __future__ import annotations

import logging
from pathlib import Path

from sqlalchemy import Connection, inspect, text

from recast_core.errors import RecastError
from server.record.loss_table import LossEntry
from server.record.tables import SCHEMA, VERSIONS
from server.record.tables_beside import Folder

_SCRIPTS = Path(__file__).parent / "migrations"


def create(connection: Connection) -> None:
    """Make the tables of today in a database that has none of ours."""
    assert Folder.metadata is LossEntry.metadata  # all tables, wherever they are written down
    Folder.metadata.create_all(connection)
    connection.execute(
        text(f"CREATE TABLE {VERSIONS} (version_num VARCHAR(32) NOT NULL PRIMARY KEY)")
    )
    connection.execute(text(f"INSERT INTO {VERSIONS} VALUES ('{SCHEMA:04}')"))


def upgrade(connection: Connection) -> None:
    """Bring an earlier registry to the schema of today, in the connection's transaction."""
    from alembic import command
    from alembic.config import Config

    logging.getLogger("alembic").setLevel(logging.WARNING)
    config = Config()
    config.set_main_option("script_location", str(_SCRIPTS).replace("%", "%%"))
    config.attributes["connection"] = connection
    command.upgrade(config, "head")


def noted_schema(connection: Connection, where: str) -> int | None:
    """The schema that Alembic's table notes; ``None`` where there is no such table.

    Raises:
        RecastError: a table that notes something else.
    """
    if not inspect(connection).has_table(VERSIONS):
        return None
    found = connection.execute(text(f"SELECT version_num FROM {VERSIONS}")).scalars().all()
    if len(found) != 1 or not str(found[0]).isdecimal():
        raise RecastError(f"{where} does not say its schema ({found}): restore a copy")
    return int(found[0])


def check_schema(schema: int, oldest: int, where: str) -> bool:
    """Whether a registry of this schema must be upgraded.

    Raises:
        RecastError: it is of another time.
    """
    if schema > SCHEMA or schema < oldest:
        remedy = "upgrade recast, or name another" if schema > SCHEMA else "name another"
        raise RecastError(f"{where} has schema {schema} and this recast reads {SCHEMA}: {remedy}")
    return schema < SCHEMA
