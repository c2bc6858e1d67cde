"""A registry that is an SQLite file."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable
from pathlib import Path

from sqlalchemy import URL, Connection, Engine, create_engine, event

from recast_core.errors import RecastError
from server.record.migrate import check_schema, create, noted_schema, upgrade
from server.record.tables import OLDEST, SCHEMA

APPLICATION_ID = 0x52435354  # "RCST" in the header of an SQLite file
_AGAIN_SECONDS = 0.01


def open_file(
    path: Path, lock_seconds: int, serialise: Callable[[object], str], *, read_only: bool
) -> Engine:
    """Open a registry's file, or create it; transactions with the option ``write`` take the lock.

    Args:
        path: of the file.
        lock_seconds: to wait for another process's transaction.
        serialise: values to JSON.
        read_only: change nothing.

    Raises:
        RecastError: the file is no registry, or is of another schema.
        SQLAlchemyError: it cannot be read or written.
    """
    if path.exists() and not path.is_file():  # a pipe would wait for ever
        raise RecastError(f"{path} is no regular file: name a run's registry")
    engine = create_engine(
        _url(path, read_only=read_only),
        connect_args={"timeout": lock_seconds},
        json_serializer=serialise,
    )

    # The driver's own transactions would begin at the first write and leave reads outside.
    @event.listens_for(engine, "connect")
    def connected(connection: sqlite3.Connection, _record: object) -> None:
        connection.isolation_level = None
        connection.execute("PRAGMA foreign_keys = ON")
        connection.execute("PRAGMA synchronous = FULL")

    @event.listens_for(engine, "begin")
    def begun(connection: Connection) -> None:
        write = connection.get_execution_options().get("write", False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")

    try:
        if not read_only:
            path.parent.mkdir(parents=True, exist_ok=True)
        with engine.connect() as connection:
            fresh = _is_incomplete(connection, path)
        if fresh and read_only:
            raise RecastError(f"{path} is empty or of an older recast: open it with `recast`")
        if fresh:
            _complete(engine, path, lock_seconds)
    except BaseException:
        engine.dispose()
        raise
    return engine


def _url(path: Path, *, read_only: bool) -> URL:
    if not read_only:
        return URL.create("sqlite", database=str(path))
    query = {"mode": "ro", "uri": "true"}
    return URL.create("sqlite", database=path.absolute().as_uri(), query=query)


def _complete(engine: Engine, path: Path, lock_seconds: float) -> None:
    _write_ahead(engine, lock_seconds)
    with engine.execution_options(write=True).begin() as connection:
        if _is_incomplete(connection, path):  # not so where another process was faster
            if _is_empty(connection):
                create(connection)
            else:
                upgrade(connection)
            connection.exec_driver_sql(f"PRAGMA application_id = {APPLICATION_ID}")
            connection.exec_driver_sql(f"PRAGMA user_version = {SCHEMA}")


def _write_ahead(engine: Engine, lock_seconds: float) -> None:
    """Let whoever reads and whoever writes be at work at once."""
    ends, raw = time.monotonic() + lock_seconds, engine.raw_connection()
    try:
        while True:
            try:
                raw.cursor().execute("PRAGMA journal_mode = WAL")
                return
            except sqlite3.OperationalError as error:
                # For another that does the same now SQLite waits in other statements, not in this.
                busy = error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_BUSY
                if not busy or time.monotonic() >= ends:
                    raise
            time.sleep(_AGAIN_SECONDS)
    finally:
        raw.close()


def _is_empty(connection: Connection) -> bool:
    query = "SELECT count(*) FROM sqlite_master"
    return not connection.exec_driver_sql(query).scalar_one()


def _is_incomplete(connection: Connection, path: Path) -> bool:
    """Whether tables are lacking: the file is empty, or of an older schema.

    Raises:
        RecastError: it is no registry, or one of another time.
    """
    owner = connection.exec_driver_sql("PRAGMA application_id").scalar_one()
    schema = connection.exec_driver_sql("PRAGMA user_version").scalar_one()
    if owner == schema == 0 and _is_empty(connection):
        return True
    if owner != APPLICATION_ID:
        raise RecastError(f"{path} is another program's database: name another file")
    # Of a later recast both say so; that it is of an earlier one, only the header tells.
    noted = noted_schema(connection, str(path)) or 0
    return check_schema(noted if noted > SCHEMA else schema, OLDEST, str(path))
