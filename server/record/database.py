"""Opening a registry, wherever it is, and its errors in one line."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError, IntegrityError, OperationalError, SQLAlchemyError

from recast_core.errors import RecastError
from server.record.place import Place
from server.record.soundness import check_rows
from server.record.sqlite import open_file

# A disk may stand still for half a minute, and SQLite does not let those who wait go in turn.
LOCK_SECONDS = 120
# Of PostgreSQL: the server ends or starts, or the connection is gone.
_AWAY = ("57P", "08")
# What SQLite and PostgreSQL say of sums of numbers that nobody counted to.
_OVERFLOWS = ("integer overflow", "bigint out of range")


class AwayError(RecastError):
    """A database cannot be reached now, or left in the middle of a transaction, which is undone."""


@contextmanager
def plain_errors(place: Place, doing: str) -> Iterator[None]:
    """Turn the database's errors into a ``RecastError`` that says what was being done.

    Raises:
        AwayError: a database that is not a file is away.
        RecastError: anything else.
    """
    try:
        yield
    except (SQLAlchemyError, sqlite3.Error, OSError) as error:
        original = getattr(error, "orig", None) or error
        lines = [" ".join(line.split()) for line in str(original).splitlines()]
        cause = next((line for line in lines if line), "no reason given")
        if any(text in cause for text in _OVERFLOWS):
            raise RecastError(
                f"{place} is damaged (numbers too large to add up, {doing}): restore a copy"
            ) from error
        kind: type[RecastError] = RecastError
        if isinstance(error, IntegrityError):
            remedy = "give a known run and task, and record each round once"
        elif place.url:
            kind = AwayError if is_away(error) else RecastError
            remedy = "check that the database is up and lets you in (PGPASSWORD, ~/.pgpass)"
        else:
            remedy = "check that the disk has room and that it is recast's own, or name another"
        raise kind(f"{doing} in {place}: {cause}; {remedy}") from error


@contextmanager
def plain_damage(place: Place) -> Iterator[None]:
    """Turn what comes of values that recast never wrote into a ``RecastError``."""
    try:
        yield
    except (ValueError, TypeError, RecursionError) as error:
        cause = " ".join(str(error).split())[:80]
        raise RecastError(f"{place} is damaged ({cause}): restore a copy") from error


def is_away(error: BaseException) -> bool:
    """Whether a database's error says that it is gone, rather than what was asked was wrong."""
    if isinstance(error, DBAPIError) and error.connection_invalidated:
        return True
    state = getattr(getattr(error, "orig", None), "sqlstate", None)
    return isinstance(error, OperationalError) and (state is None or state.startswith(_AWAY))


def open_database(place: Place, *, read_only: bool = False) -> Engine:
    """Open a registry, or create it; transactions with the option ``write`` exclude each other.

    Raises:
        RecastError: what is there is no registry, is of another schema or cannot be written, or a
            database is away.
    """
    check_rows()
    serialise = _as_json
    with plain_errors(place, "opening the registry"):
        if not place.url:
            return open_file(place.path, LOCK_SECONDS, serialise, read_only=read_only)
        from server.record.postgres import open_postgres

        return open_postgres(place.url, LOCK_SECONDS, serialise, read_only=read_only)


def _as_json(value: object) -> str:
    return json.dumps(value, sort_keys=True, default=str)
