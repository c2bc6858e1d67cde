"""What Alembic runs for an upgrade: on the connection that it is given, in its transaction."""

from __future__ import annotations

from alembic import context

from server.record.tables import VERSIONS
from server.record.tables_beside import Folder

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Folder.metadata,
    version_table=VERSIONS,
)
context.run_migrations()
