"""A registry in a PostgreSQL database, which runs of several folders may share."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event, inspect, text

from recast_core.errors import RecastError
from server.record.migrate import check_schema, create, noted_schema, upgrade
from server.record.tables import Base

# The first schema that could be in a database.
_OLDEST = 12
# Who writes takes this lock of the database's, as a writer of a file takes the file's.
_WRITERS = int.from_bytes(hashlib.sha256(b"recast: writers").digest()[:8], "big", signed=True)
# A server that is cut off in silence is noticed in a minute.
_ALIVE = {
    "connect_timeout": 10,
    "keepalives_idle": 20,
    "keepalives_interval": 10,
    "keepalives_count": 4,
    "tcp_user_timeout": 60_000,
    "application_name": "recast",
}


def open_postgres(
    url: str, lock_seconds: int, serialise: Callable[[object], str], *, read_only: bool
) -> Engine:
    """Open a registry in a database, or create its tables there; see ``open_database``.

    Args:
        url: of the database, without a password.
        lock_seconds: to wait for another process's transaction.
        serialise: values to JSON.
        read_only: change nothing.

    Raises:
        RecastError: psycopg is missing, or the database is of another schema or another program's.
        SQLAlchemyError: it is away, or lets nobody in.
    """
    if find_spec("psycopg") is None:
        raise RecastError("PostgreSQL needs psycopg: `pip install 'recast-fl[postgres]'`")
    engine = create_engine(
        url, connect_args=_ALIVE, pool_pre_ping=True, json_serializer=serialise
    )  # fmt: skip

    @event.listens_for(engine, "connect")
    def connected(connection: Any, _record: object) -> None:
        with connection.cursor() as cursor:
            cursor.execute(f"SET lock_timeout = '{lock_seconds}s'")
            cursor.execute("SET client_encoding = 'UTF8'")
            # A round that has been reported must be on the disk, whatever the server's default.
            if cursor.execute("SHOW synchronous_commit").fetchone()[0] == "off":
                cursor.execute("SET synchronous_commit = on")
            if read_only:
                cursor.execute("SET default_transaction_read_only = on")
        connection.commit()

    @event.listens_for(engine, "begin")
    def begun(connection: Connection) -> None:
        if connection.get_execution_options().get("write", False):
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _WRITERS})

    try:
        with engine.connect() as connection:
            fresh = _is_incomplete(connection, url)
        if fresh and read_only:
            raise RecastError(f"{url} is empty or of an older recast: open it with `recast`")
        if fresh:
            with engine.execution_options(write=True).begin() as connection:
                if _is_incomplete(connection, url):  # not so where another process was faster
                    make = create if noted_schema(connection, url) is None else upgrade
                    make(connection)
    except BaseException:
        engine.dispose()
        raise
    return engine


def _is_incomplete(connection: Connection, url: str) -> bool:
    version = connection.dialect.server_version_info or (0,)
    if version < (13,):
        raise RecastError(f"{url} is PostgreSQL {version[0]}: recast needs 13 or later")
    schema = noted_schema(connection, url)
    if schema is not None:
        return check_schema(schema, _OLDEST, url)
    there = set(inspect(connection).get_table_names()) & set(Base.metadata.tables)
    if there:
        raise RecastError(
            f"{url} has another program's table {min(there)!r}: name another database, or another "
            "schema (?options=-csearch_path%3DNAME)"
        )
    return True


class Claim:
    """A folder's runs are this process's, for as long as its connection to the database lasts.

    The database drops the claim of a process that dies, however it dies.
    """

    def __init__(self, engine: Engine, folder: str) -> None:
        """Claim the runs of ``folder``.

        Raises:
            RecastError: another process has them.
        """
        self._engine, self._folder = engine, folder
        self._connection: Connection | None = None
        self.check()

    def check(self) -> None:
        """See that the claim still holds; after a connection was lost, claim again.

        Raises:
            RecastError: another process was faster.
            SQLAlchemyError: the database is away.
        """
        if self._connection is not None:
            try:
                self._connection.execute(text("SELECT 1"))
            except Exception:
                self.drop()
            else:
                return
        connection = self._engine.connect().execution_options(isolation_level="AUTOCOMMIT")
        taken = connection.execute(
            text("SELECT pg_try_advisory_lock(:key)"), {"key": _key(self._folder)}
        ).scalar_one()
        if not taken:
            connection.close()
            raise RecastError(
                f"another server has the runs of {self._folder} in {self._engine.url}: stop it, or "
                "name another --run-dir"
            )
        self._connection = connection

    def drop(self) -> None:
        """Give the claim back."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.invalidate()  # the lock lasts as long as the connection, not its place
            connection.close()


def is_claimed(connection: Connection, folder: str) -> bool:
    """Whether a process has the runs of ``folder``."""
    query = text(
        "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objsubid = 1 AND granted "
        "AND database = (SELECT oid FROM pg_database WHERE datname = current_database()) "
        "AND classid::bigint = :high AND objid::bigint = :low"
    )
    key = _key(folder) & (1 << 64) - 1
    found = connection.execute(query, {"high": key >> 32, "low": key & 0xFFFFFFFF}).scalar_one()
    return bool(found)


def _key(folder: str) -> int:
    digest = hashlib.sha256(f"recast: {folder}".encode()).digest()
    return int.from_bytes(digest[:8], "big", signed=True)
