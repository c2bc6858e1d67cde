"""Opening the registry's database file."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import URL, Connection, Engine, create_engine, event
from sqlalchemy.exc import IntegrityError, SQLAlchemyError

from recast_core.errors import RecastError
from server.record import loss_table  # noqa: F401  a table of its own
from server.record.soundness import check_rows
from server.record.tables import OLDEST, SCHEMA, Base

APPLICATION_ID = 0x52435354  # "RCST" in the header of an SQLite file
LOCK_SECONDS = 30


@contextmanager
def plain_errors(path: Path, doing: str) -> Iterator[None]:
    """Turn the database's errors into a ``RecastError`` that says what was being done."""
    try:
        yield
    except (SQLAlchemyError, sqlite3.Error, OSError) as error:
        cause = next(
            iter(str(getattr(error, "orig", None) or error).splitlines()), "no reason given"
        )
        if isinstance(error, IntegrityError):
            remedy = "give a known run and task, and record each round once"
        else:
            remedy = "check that the disk has room and that it is recast's own, or name another"
        raise RecastError(f"{doing} in {path}: {cause}; {remedy}") from error


@contextmanager
def plain_damage(path: Path) -> Iterator[None]:
    """Turn what comes of values that recast never wrote into a ``RecastError``."""
    try:
        yield
    except (ValueError, TypeError, RecursionError) as error:
        cause = " ".join(str(error).split())[:80]
        raise RecastError(f"{path} is damaged ({cause}): restore a copy") from error


def open_database(path: Path, *, read_only: bool = False) -> Engine:
    """Open a registry's file, or create it; transactions with the option ``write`` take the lock.

    Raises:
        RecastError: the file is no registry, is of another schema or cannot be written.
    """
    if path.exists() and not path.is_file():  # a pipe would wait for ever
        raise RecastError(f"{path} is no regular file: name a run's registry")
    check_rows()
    engine = create_engine(
        _url(path, read_only=read_only),
        connect_args={"timeout": LOCK_SECONDS},
        json_serializer=lambda value: json.dumps(value, sort_keys=True, default=str),
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
        with plain_errors(path, "opening the registry"):
            if not read_only:
                path.parent.mkdir(parents=True, exist_ok=True)
            with engine.connect() as connection:
                fresh = _is_incomplete(connection, path)
            if fresh and read_only:
                raise RecastError(f"{path} is empty or of an older recast: open it with `recast`")
            if fresh:
                _create(engine, path)
    except RecastError:
        engine.dispose()
        raise
    return engine


def _url(path: Path, *, read_only: bool) -> URL:
    if not read_only:
        return URL.create("sqlite", database=str(path))
    query = {"mode": "ro", "uri": "true"}
    return URL.create("sqlite", database=path.absolute().as_uri(), query=query)


def _create(engine: Engine, path: Path) -> None:
    raw = engine.raw_connection()
    try:
        raw.cursor().execute("PRAGMA journal_mode = WAL")
    finally:
        raw.close()
    with engine.execution_options(write=True).begin() as connection:
        if _is_incomplete(connection, path):  # not so where another process was faster
            Base.metadata.create_all(connection)
            _widen(connection)
            connection.exec_driver_sql(f"PRAGMA application_id = {APPLICATION_ID}")
            connection.exec_driver_sql(f"PRAGMA user_version = {SCHEMA}")


def _widen(connection: Connection) -> None:
    """Let a ledger of before take the kinds of today.

    What a table may hold is changed the way that SQLite's documentation gives for it, in the text
    of its definition.
    """
    before = "'metrics', 'control')"
    after = "'metrics', 'control', 'keys', 'shares')"
    connection.exec_driver_sql("PRAGMA writable_schema = ON")
    connection.exec_driver_sql(
        "UPDATE sqlite_master SET sql = replace(sql, ?, ?) WHERE name = 'ledger'",
        (before, after),
    )
    connection.exec_driver_sql("PRAGMA writable_schema = RESET")


def _is_incomplete(connection: Connection, path: Path) -> bool:
    """Whether tables are lacking: the file is empty, or of an older schema.

    Raises:
        RecastError: it is no registry, or one of another time.
    """
    owner = connection.exec_driver_sql("PRAGMA application_id").scalar_one()
    schema = connection.exec_driver_sql("PRAGMA user_version").scalar_one()
    tables = connection.exec_driver_sql("SELECT count(*) FROM sqlite_master").scalar_one()
    if owner == schema == tables == 0:
        return True
    if owner != APPLICATION_ID:
        raise RecastError(f"{path} is another program's database: name another file")
    if OLDEST <= schema < SCHEMA:
        return True
    if schema != SCHEMA:
        remedy = "upgrade recast, or name another file" if schema > SCHEMA else "name another file"
        raise RecastError(f"{path} has schema {schema} and this recast reads {SCHEMA}: {remedy}")
    return False
